"""The page of the benchmarks: a run replaces its own servers' figures and keeps those of the others."""

from tests.benchmarks.report import PAGE, Page, Row
from tests.benchmarks.servers import Servers

FAST = Row("queue: rate", 1.25, ">= 1.0", "5 against 4 items/s")
SLOW = Row("relay: rate", 0.05, ">= 0.1", "1 against 20 rows/s; ratios 0.04 to 0.06")


def _page() -> Page:
    page = Page()
    page.put(Servers.EMBEDDED, [FAST, SLOW], "monday; embedded servers")
    return page


def test_page_that_was_written_is_read_back_as_it_is() -> None:
    """Reading a page and writing it changes nothing."""
    page = _page()
    page.put(Servers.COMPOSE, [SLOW], "tuesday; containers")
    text = page.render()
    assert Page.parse(text).render() == text


def test_run_on_other_servers_adds_its_column_and_keeps_the_rest() -> None:
    """A second kind of servers fills its own cells; the first kind's figures and note stay."""
    page = Page.parse(_page().render())
    page.put(Servers.COMPOSE, [Row(SLOW.name, 0.2, SLOW.goal, "4 against 20 rows/s")], "tuesday; containers")
    lines = page.render().splitlines()
    assert f"| {FAST.name} | >= 1.0 | **1.25**: {FAST.detail} |  |" in lines
    assert f"| {SLOW.name} | >= 0.1 | **0.05** (missed): {SLOW.detail} | **0.20**: 4 against 20 rows/s |" in lines
    assert "- on embedded servers: monday; embedded servers" in lines
    assert "- on Apache Kafka: tuesday; containers" in lines


def test_run_on_the_same_servers_leaves_no_older_figure() -> None:
    """What is measured no more is on the page no more."""
    page = Page.parse(_page().render())
    page.put(Servers.EMBEDDED, [SLOW], "wednesday")
    assert FAST.name not in page.render()
    assert "monday" not in page.render()


def test_page_of_this_project_is_one_that_a_run_can_add_to() -> None:
    """docs/benchmarks.md is in the form that `render` writes, so a run on other servers loses nothing of it."""
    text = PAGE.read_text("utf-8")
    assert Page.parse(text).render() == text
