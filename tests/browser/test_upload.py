"""The upload page in a real browser, on the running system."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import BrowserContext, Page, Request, Route, expect

from tests.browser.conftest import until

PARTS = "**/api/multipart/part?*"
ARRIVED = re.compile("Open its page|Watch it")
MADE = 60_000  # milliseconds in which a second of film is surely made


def number_of(request: Request) -> int:
    return int(parse_qs(urlsplit(request.url).query)["part_number"][0])


async def choose(page: Page, path: Path, title: str) -> None:
    await page.goto("/upload")
    await page.set_input_files("#file", path)
    await page.fill("[name=title]", title)


async def test_a_large_film_is_sent_in_parts_and_then_plays(page: Page, large_film: Path) -> None:
    sent: list[int] = []
    page.on("requestfinished", lambda request: sent.append(number_of(request)) if "/part?" in request.url else None)
    await choose(page, large_film, "Sent in Parts")
    await page.get_by_role("button", name="Upload").click()
    await expect(page.locator("#progress .state")).to_have_text("Ready", timeout=MADE)
    assert sorted(sent) == [1, 2, 3, 4, 5]
    await page.get_by_role("link", name="Watch it").click()
    await until(page, "document.querySelector('video').currentTime > 0.5")


async def test_an_upload_goes_on_after_a_reload_and_sends_no_finished_part_again(page: Page, large_film: Path) -> None:
    finished: set[int] = set()
    again: set[int] = set()

    async def hold_the_last_parts(route: Route) -> None:
        if number_of(route.request) <= 2:
            await route.continue_()

    def note(request: Request) -> None:
        if "/part?" in request.url:
            finished.add(number_of(request))

    page.on("requestfinished", note)
    page.on("dialog", lambda dialog: dialog.accept())
    await page.route(PARTS, hold_the_last_parts)
    await choose(page, large_film, "Interrupted")
    await page.get_by_role("button", name="Upload").click()
    await until(page, "document.querySelector('#progress progress').value > 0.4")
    assert finished == {1, 2}

    await page.reload()
    await page.unroute_all(behavior="ignoreErrors")  # before the reload it would let the held parts go
    page.on("request", lambda request: again.add(number_of(request)) if "/part?" in request.url else None)
    await expect(page.locator("#resume")).to_contain_text("Interrupted")
    await page.set_input_files("#file", large_film)
    await expect(page.get_by_role("link", name=ARRIVED)).to_be_visible()
    assert again == {3, 4, 5}


async def test_a_paused_upload_sends_nothing_until_it_is_resumed(page: Page, large_film: Path) -> None:
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)

    await page.route(PARTS, hold)
    await choose(page, large_film, "Paused")
    await page.get_by_role("button", name="Upload").click()
    await expect(page.locator("#progress .state")).to_have_text("Sending")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#progress .state")).to_have_text("Paused")
    await page.unroute_all(behavior="ignoreErrors")
    sent: list[int] = []
    page.on("request", lambda request: sent.append(number_of(request)) if "/part?" in request.url else None)
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("link", name=ARRIVED)).to_be_visible()
    assert sorted(sent) == [1, 2, 3, 4, 5]


async def test_a_store_that_is_away_for_a_moment_costs_a_try_and_no_upload(page: Page, large_film: Path) -> None:
    refused: set[int] = set()

    async def refuse_once(route: Route) -> None:
        number = number_of(route.request)
        if number in refused:
            await route.continue_()
        else:
            refused.add(number)
            await route.fulfill(status=503, headers={"Retry-After": "0"})

    await page.route(PARTS, refuse_once)
    await choose(page, large_film, "Tried Again")
    await page.get_by_role("button", name="Upload").click()
    await expect(page.get_by_role("link", name=ARRIVED)).to_be_visible()
    assert refused == {1, 2, 3, 4, 5}


async def test_an_upload_given_up_is_no_longer_offered(page: Page, context: BrowserContext, large_film: Path) -> None:
    async def hold(route: Route) -> None: ...

    await page.route(PARTS, hold)
    await choose(page, large_film, "Given Up")
    async with page.expect_response("**/api/multipart/initiate") as begun:
        await page.get_by_role("button", name="Upload").click()
    upload_id = (await (await begun.value).json())["upload_id"]
    async with page.expect_response("**/api/multipart/abort") as aborted:
        await page.get_by_role("button", name="Give up").click()
    assert (await aborted.value).status == 204
    answer = await context.request.get("/api/multipart/list-parts", params={"upload_id": upload_id})
    assert answer.status == 404
    await page.goto("/upload")
    await expect(page.locator("#resume")).to_be_hidden()


async def test_an_episode_asks_for_its_show_and_each_refused_field_says_why(page: Page, large_film: Path) -> None:
    await choose(page, large_film, "Pilot")
    await expect(page.locator("#episode")).to_be_hidden()
    await page.select_option("[name=content_type]", "episode")
    await page.fill("[name=show_title]", "Small Worlds")
    await page.fill("[name=season_number]", "1")
    await page.fill("[name=episode_number]", "one")
    await page.get_by_role("button", name="Upload").click()
    await expect(page.locator(".error[data-for=episode_number]")).to_be_visible()
    await expect(page.locator("[name=episode_number]")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator(".error[data-for=season_number]")).to_be_hidden()
