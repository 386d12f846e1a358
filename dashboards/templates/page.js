"use strict";
(function () {
  const hidden = new Set();
  const plots = [];
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    // Plotly offers an upload to its own cloud by default: a report stays on this machine.
    showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg" },
  };
  for (const div of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById(div.id + "-data").textContent);
    // On a narrow screen the page's own legend serves alone.
    if (window.innerWidth < 700) figure.layout.showlegend = false;
    Plotly.newPlot(div, figure.data, figure.layout, config);
    plots.push(div);
  }
  function apply() {
    for (const plot of plots) {
      const indices = [], visible = [];
      plot.data.forEach(function (trace, index) {
        if (trace.legendgroup !== undefined && trace.legendgroup !== "") {
          indices.push(index);
          visible.push(hidden.has(trace.legendgroup) ? "legendonly" : true);
        }
      });
      if (indices.length) Plotly.restyle(plot, { visible: visible }, indices);
    }
  }
  for (const button of document.querySelectorAll("button[data-level]")) {
    button.addEventListener("click", function () {
      const level = button.dataset.level;
      if (hidden.has(level)) hidden.delete(level); else hidden.add(level);
      button.setAttribute("aria-pressed", hidden.has(level) ? "false" : "true");
      apply();
    });
  }
  // Paper does not resize a drawing: give each the size of its place on a portrait page, and take it back afterwards.
  window.addEventListener("beforeprint", function () {
    for (const plot of plots) {
      const wide = plot.closest("figure").classList.contains("wide");
      Plotly.relayout(plot, { width: wide ? 690 : 336, height: Math.min(plot.layout.height, 270) });
    }
  });
  window.addEventListener("afterprint", function () {
    for (const plot of plots) {
      Plotly.relayout(plot, { width: null, height: parseInt(plot.style.height, 10), autosize: true });
    }
  });
  document.documentElement.dataset.ready = String(plots.length);
})();
