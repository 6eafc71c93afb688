// Runs before the first paint, so that a page never flashes in the wrong colours.
"use strict";
{
  const chosen = localStorage.getItem("tidegate.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
