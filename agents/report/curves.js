// Draws the chart of learning curves in the colours of the style sheet, and anew when the page turns light or dark.
{
  const item = JSON.parse(document.getElementById("curves-data").textContent);
  const paint = (drawn) => {
    const style = getComputedStyle(document.documentElement);
    for (const model of drawn.all_models) {
      for (const names of model.tags ?? []) {
        const entries = Object.entries(names).map(([property, name]) => [property, style.getPropertyValue(`--${name}`).trim()]);
        model.setv(Object.fromEntries(entries));
      }
    }
  };
  Bokeh.embed.embed_item(item).then(() => {
    const drawn = Bokeh.documents.at(-1);
    paint(drawn);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint(drawn));
  });
}
