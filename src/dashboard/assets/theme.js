// Loaded before the first paint, and so no module: a chosen theme does not flash.
{
  const chosen = localStorage.getItem("offpeak-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
