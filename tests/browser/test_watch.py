"""The watch page in a real browser, on the running system."""

from pathlib import Path

from aiohttp import ClientSession
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import until, upload
from tests.films import film

PLAYING = "document.querySelector('video').currentTime > {}"
JUMP = "document.querySelector('video').currentTime = {}"


async def test_a_film_plays_past_the_border_of_its_first_segment(page: Page, film_id: str) -> None:
    await page.goto(f"/watch/{film_id}")
    await until(page, PLAYING.format(7))
    shown = "document.querySelector('video').getVideoPlaybackQuality()"
    assert await page.evaluate(f"{shown}.totalVideoFrames - {shown}.droppedVideoFrames") > 12 * 3


async def test_the_quality_menu_lists_the_ladder(page: Page, film_id: str) -> None:
    await page.goto(f"/watch/{film_id}")
    await page.click("#quality")
    await expect(page.get_by_role("menuitemradio")).to_have_text(["Auto", "360p", "240p"])


async def test_a_chosen_quality_is_what_plays(page: Page, film_id: str) -> None:
    await page.goto(f"/watch/{film_id}")
    await until(page, PLAYING.format(0))
    for quality in ("360p", "240p"):
        await page.click("#quality")
        await page.get_by_role("menuitemradio", name=quality).click()
        await until(page, f"document.querySelector('video').videoHeight === {quality[:-1]}")
        await expect(page.locator("#quality")).to_have_text(quality)


async def test_a_film_left_in_the_middle_goes_on_there(page: Page, long_film_id: str) -> None:
    await leave_in_the_middle(page, long_film_id)
    await page.goto(f"/watch/{long_film_id}")
    await expect(page.locator("#offer .continue")).to_contain_text("Continue from 0:3")
    await page.screenshot(path="test-output/browser/offer.png")
    await page.click("#offer .continue")
    await until(page, PLAYING.format(35))
    await expect(page.locator("#offer")).to_be_hidden()


async def test_a_film_left_in_the_middle_starts_over_when_asked(page: Page, long_film_id: str) -> None:
    await leave_in_the_middle(page, long_film_id)
    await page.goto(f"/watch/{long_film_id}")
    await page.click("#offer .again")
    await until(page, PLAYING.format(0.5))
    assert await page.evaluate("document.querySelector('video').currentTime") < 30


async def leave_in_the_middle(page: Page, video_id: str) -> None:
    """Play from 35 s on and go home without a pause: what is saved is saved on leaving."""
    await page.goto(f"/watch/{video_id}")
    await until(page, PLAYING.format(0.3))
    await page.evaluate(JUMP.format(35))
    await until(page, PLAYING.format(35.5))
    await page.goto("/")
    await expect(page.locator("#continue a.card")).to_have_count(1)


async def test_a_pause_is_remembered_at_once_before_the_player_told_how_far_it_is(
    page: Page, long_film_id: str
) -> None:
    await page.add_init_script("addEventListener('timeupdate', (event) => event.stopImmediatePropagation(), true)")
    await page.goto(f"/watch/{long_film_id}")
    await until(page, PLAYING.format(0.3))
    await page.evaluate(JUMP.format(40))
    await until(page, PLAYING.format(40.2))
    async with page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
        await page.evaluate("document.querySelector('video').pause()")
    assert (await saved.value).status == 202
    body = (await saved.value).request.post_data_json or {}
    assert body["state"] == "paused"
    assert body["position_seconds"] > 40


async def test_one_playback_counts_once_though_the_answer_to_its_view_was_lost(
    page: Page, tmp_path: Path, base: str
) -> None:
    video_id = await upload(base, film(tmp_path / "short.mp4", 4), "Counted Once")
    sent: list[str] = []

    async def lose_the_first_answer(route: Route) -> None:
        body = route.request.post_data_json or {}
        sent.append(body["view_id"])
        if len(sent) > 1:
            await route.continue_()
            return
        answer = await route.fetch()
        assert answer.status == 202
        await route.fulfill(status=503, headers={"Retry-After": "1"})

    await page.route("**/views", lose_the_first_answer)
    await page.goto(f"/watch/{video_id}")
    await until(page, "localStorage.getItem('et.views') === '[]'")
    assert len(sent) == 2
    assert sent[0] == sent[1]
    await expect(page.locator(".facts .views")).to_have_text("1 view")
    async with ClientSession(base) as http, http.get(f"/api/analytics/videos/{video_id}/stats") as answer:
        assert (await answer.json())["total_views"] == 1


async def test_what_is_no_film_says_so_in_words(page: Page, tmp_path: Path, base: str) -> None:
    path = tmp_path / "letter.mp4"
    path.write_text("Dear all,\n" * 500)
    video_id = await upload(base, path, "A Letter")
    await page.goto(f"/watch/{video_id}")
    await expect(page.locator("#waiting h2")).to_have_text("This film cannot be played")
    await expect(page.locator("#waiting p")).not_to_be_empty()


async def test_a_film_that_is_not_there_is_a_page_that_leads_home(page: Page) -> None:
    answer = await page.goto("/watch/nothing-like-it")
    assert answer is not None
    assert answer.status == 404
    await page.get_by_role("link", name="Back home").click()
    await expect(page).to_have_title("EntertainmentTime")
