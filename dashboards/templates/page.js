"use strict";
(function () {
  const hidden = new Set();
  const plots = [];
  const screenIsDark = window.matchMedia("(prefers-color-scheme: dark)");
  let figures, dark;
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    // Plotly offers an upload to its own cloud by default: a report stays on this machine.
    showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
  };

  // Colours of a figure on a dark page. #rrggbb and rgba(r,g,b,a) are replaced by their counterparts.
  function darkColor(text) {
    if (/^#[0-9a-f]{6}$/i.test(text)) return dark[text.toLowerCase()] || text;
    const parts = /^rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)$/.exec(text);
    if (!parts || Number(parts[4]) === 0) return text;
    const hex = "#" + parts.slice(1, 4).map((part) => Number(part).toString(16).padStart(2, "0")).join("");
    const other = dark[hex];
    if (!other) return text;
    const channels = [1, 3, 5].map((start) => parseInt(other.slice(start, start + 2), 16));
    return "rgba(" + channels.join(",") + "," + parts[4] + ")";
  }
  function recolored(value) {
    if (typeof value === "string") return darkColor(value);
    if (Array.isArray(value)) return value.some((item) => typeof item !== "number") ? value.map(recolored) : value.slice();
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolored(item)]));
  }

  // Plotly writes into what it is given, so every drawing gets a copy.
  function drawn(div, onDark) {
    const figure = onDark ? recolored(figures[div.id]) : JSON.parse(JSON.stringify(figures[div.id]));
    delete figure.layout.title;  // it stands above the figure, as a heading
    // On a narrow screen the page's own legend serves alone.
    if (window.innerWidth < 700) figure.layout.showlegend = false;
    for (const trace of figure.data) {
      if (trace.legendgroup && hidden.has(trace.legendgroup)) trace.visible = "legendonly";
    }
    return figure;
  }
  function save(div) {
    const figure = drawn(div, false);
    figure.layout = Object.assign(figure.layout, { title: figures[div.id].layout.title, paper_bgcolor: "#ffffff" });
    figure.layout.margin = Object.assign({}, figure.layout.margin, { t: 56 });
    const size = { width: div.clientWidth, height: div.clientHeight + 26 };
    Plotly.downloadImage(figure, Object.assign({ format: "svg", filename: div.id }, size));
  }
  function paint(onDark) {
    for (const div of plots) {
      const figure = drawn(div, onDark);
      Plotly.react(div, figure.data, figure.layout);
    }
  }
  function draw() {
    const button = { name: "image", title: "Save as SVG", icon: Plotly.Icons.camera, click: save };
    for (const div of document.querySelectorAll(".plot")) {
      const figure = drawn(div, screenIsDark.matches);
      Plotly.newPlot(div, figure.data, figure.layout, Object.assign({ modeBarButtonsToAdd: [button] }, config));
      plots.push(div);
    }
    document.documentElement.dataset.ready = String(plots.length);
  }

  for (const button of document.querySelectorAll("button[data-level]")) {
    button.addEventListener("click", function () {
      const level = button.dataset.level;
      if (hidden.has(level)) hidden.delete(level); else hidden.add(level);
      button.setAttribute("aria-pressed", hidden.has(level) ? "false" : "true");
      paint(screenIsDark.matches);
    });
  }
  // On a phone a wide table is a list of rows, each value with the name of its column (page.css).
  for (const table of document.querySelectorAll(".scroll > table:not(.tight, .samples)")) {
    const names = [...table.querySelectorAll("thead th")].map((head) => head.firstChild ? head.firstChild.textContent : "");
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => { if (cell.tagName === "TD") cell.dataset.column = names[index]; });
    }
    table.classList.add("rows");
  }
  screenIsDark.addEventListener("change", () => paint(screenIsDark.matches));
  // Paper is light and does not resize a drawing: give each the size of its place on a portrait page, and take it back.
  window.addEventListener("beforeprint", function () {
    if (screenIsDark.matches) paint(false);
    for (const plot of plots) {
      const wide = plot.closest("figure").classList.contains("wide");
      Plotly.relayout(plot, { width: wide ? 690 : 336, height: Math.min(plot.layout.height, 270) });
    }
  });
  window.addEventListener("afterprint", function () {
    for (const plot of plots) {
      Plotly.relayout(plot, { width: null, height: parseInt(plot.style.height, 10), autosize: true });
    }
    if (screenIsDark.matches) paint(true);
  });

  Promise.all([unpack("plotly-packed"), unpack("figures-packed")]).then(function (texts) {
    // The page's policy knows plotly.js by its hash and would run nothing else.
    const script = document.createElement("script");
    script.textContent = texts[0];
    document.head.append(script);
    ({ figures, dark } = JSON.parse(texts[1]));
    draw();
  }).catch(function (error) {
    const note = document.createElement("p");
    note.className = "alert";
    note.textContent = "The figures could not be drawn (" + error + "): a browser of 2023 or later is needed.";
    document.body.prepend(note);
  });
})();
