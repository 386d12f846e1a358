"use strict";
// The page's metrics as a CSV file: one row a run, step and metric.
(function () {
  const button = document.getElementById("download-data");
  function quoted(value) {
    const text = String(value);
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }
  function rows(data) {
    const lines = ["signature,level,seed,state,step,metric,value"];
    for (const [metric, runs] of Object.entries(data.metrics)) {
      for (const [index, [gaps, values]] of Object.entries(runs)) {
        const run = data.runs[index].map(quoted).join(",");
        let step = 0;
        gaps.forEach(function (gap, position) {
          step += gap;
          lines.push(run + "," + step + "," + quoted(metric) + "," + values[position]);
        });
      }
    }
    return lines.join("\n") + "\n";
  }
  button.addEventListener("click", async function () {
    const text = rows(JSON.parse(await unpack("data-packed")));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    URL.revokeObjectURL(link.href);
    document.documentElement.dataset.rows = String(text.split("\n").length - 2);
  });
})();
