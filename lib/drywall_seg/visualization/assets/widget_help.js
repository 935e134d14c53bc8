// What ipywidgets leaves out: a name for the handle of a slider, words for a picture, and in version 7 fingers.
const cell = document.querySelector(`.${name}`)?.closest(".jp-Cell") ?? document.body;
const nameAll = () => {
  for (const handle of cell.querySelectorAll('.widget-slider [role="slider"]:not([aria-label])')) {
    handle.setAttribute("aria-label", handle.closest(".widget-slider").querySelector(".widget-label").textContent);
  }
  for (const image of cell.querySelectorAll("img.widget-image:not([alt])")) image.alt = "Photo with the mask at this threshold";
};
new MutationObserver(nameAll).observe(cell, { childList: true, subtree: true });
nameAll();

// Version 7 draws jQuery UI's sliders, which know the mouse alone.
const asMouse = { touchstart: "mousedown", touchmove: "mousemove", touchend: "mouseup" };
for (const [touch, mouse] of Object.entries(asMouse)) {
  cell.addEventListener(
    touch,
    (event) => {
      if (!event.target.closest(".ui-slider") || event.defaultPrevented) return;
      event.preventDefault();
      const { clientX, clientY } = event.changedTouches[0];
      event.target.dispatchEvent(new MouseEvent(mouse, { bubbles: true, cancelable: true, view: window, clientX, clientY }));
    },
    { passive: false },
  );
}
