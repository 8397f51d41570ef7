"""The home page, the search and what holds for every page, in a real browser on the running system."""

import re

from playwright.async_api import BrowserContext, Page, expect

from tests.browser.conftest import MARKUP


async def test_home_shows_what_there_is(page: Page, film_id: str) -> None:
    await page.goto("/")
    card = page.locator(f"#all a[href='/watch/{film_id}']")
    await expect(card).to_contain_text("The Long Corridor")
    await expect(card).to_contain_text("0:12")
    await expect(card.locator("img")).to_have_js_property("complete", True)


async def test_the_top_ten_follows_a_view_without_a_reload(page: Page, context: BrowserContext, film_id: str) -> None:
    await page.goto("/")
    await page.get_by_role("tab", name="All time").click()
    answer = await context.request.post(f"/api/videos/{film_id}/views", data={})
    assert answer.status == 202
    await expect(page.locator(f"#top a[href='/watch/{film_id}'] small")).to_have_text(re.compile(r"^\d+ views?$"))


async def test_a_film_begun_is_there_to_continue_and_shows_how_far(
    page: Page, context: BrowserContext, film_id: str
) -> None:
    await page.goto("/")
    await expect(page.locator("#all a.card").first).to_be_visible()
    await expect(page.locator("#continue")).to_be_hidden()
    answer = await context.request.put(
        f"/api/videos/{film_id}/position", data={"position_seconds": 6, "duration_seconds": 12, "state": "stopped"}
    )
    token = answer.headers["x-event-position"]
    await context.request.get("/api/history/continue", params={"after": token})
    await page.reload()
    card = page.locator(f"#continue a[href='/watch/{film_id}']")
    await expect(card).to_contain_text("0:06 left")
    await expect(card.locator(".seen")).to_have_attribute("aria-label", "50 percent watched")


async def test_a_suggestion_leads_to_the_film(page: Page, film_id: str) -> None:
    await page.goto("/")
    await page.locator("#search").press_sequentially("The Long C")
    await page.locator(f"#suggestions [data-id='{film_id}']").wait_for()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/watch/{film_id}$"))


async def test_a_misspelt_search_finds_the_film(page: Page, film_id: str) -> None:
    await page.goto("/")
    await page.fill("#search", "lnog coridor")
    await page.keyboard.press("Enter")
    await expect(page.locator(f"#results a[href='/watch/{film_id}']")).to_contain_text("The Long Corridor")


async def test_no_page_asks_another_host_or_breaks_its_own_policy(page: Page, base: str, film_id: str) -> None:
    wrong: list[str] = []
    page.on(
        "request",
        lambda request: None if request.url.startswith((base, "blob:", "data:")) else wrong.append(request.url),
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    for path, sign in (
        ("/", "#all a.card"),
        ("/search?query=corridor", "#results a.card"),
        ("/upload", "#drop"),
        (f"/watch/{film_id}", "#qualities li:nth-child(2)"),
        ("/docs", "#swagger .opblock"),
    ):
        await page.goto(path)
        await page.locator(sign).first.wait_for(state="attached")
    assert wrong == []


async def test_pages_fit_a_phone(page: Page, film_id: str) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", "/upload", f"/watch/{film_id}", "/search?query=corridor"):
        await page.goto(path)
        await page.locator("main").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, path


async def test_a_title_is_text_and_never_markup(page: Page, marked_film_id: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    await page.goto(f"/watch/{marked_film_id}")
    await expect(page.locator("h1")).to_have_text(MARKUP)
    await page.goto("/search?query=sons")
    await expect(page.locator(f"#results a[href='/watch/{marked_film_id}'] strong")).to_have_text(MARKUP)
    assert dialogs == []
