"""Times in the page: from an event to the picture that answers it, by the page's own clock."""

# On the document, capturing: first at every event, and an image's load, which never bubbles, is seen too,
# also of an image that is put in only then.
LISTEN = """([start, end, target]) => {
  const timing = window.timing = {spans: [], begin: null};
  document.addEventListener(start, () => { timing.begin ??= performance.now(); }, {capture: true});
  document.addEventListener(end, event => {
    if (timing.begin === null || (target && !event.target.matches(target))) return;
    timing.spans.push(performance.now() - timing.begin);
    timing.begin = null;
  }, {capture: true});
}"""


def spans(page, act, n=20, start="keydown", end="load", target="img"):
    """Milliseconds from event `start` to event `end` at an element that matches `target`, for act(0) to act(n - 1).

    For a widget's picture: keydown to load of the img. For a canvas: input to an event `drawn` that its script
    dispatches once it has drawn (`target=None`: wherever).
    """
    page.evaluate(LISTEN, [start, end, target])
    for i in range(n):
        act(i)
        page.wait_for_function("n => window.timing.spans.length > n", arg=i, timeout=10_000)
    return page.evaluate("window.timing.spans")
