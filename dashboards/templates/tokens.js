"use strict";
// The response viewer: every token coloured by one of its numbers. Tokens are untrusted: they become text nodes only.
unpack("token-data").then(JSON.parse).then(function (responses) {
  const controls = {};
  for (const name of ["color", "order", "run", "step", "answer"]) controls[name] = document.getElementById("token-" + name);
  const place = document.getElementById("token-responses");
  const tip = document.getElementById("token-tip");
  const shown = new Map();  // element of a token -> its response and index

  function number(value) {
    return value === null || value === undefined ? "not finite" : String(Number(value.toPrecision(3)));
  }
  function largest(values) {
    return values.reduce((most, value) => Math.max(most, Math.abs(value || 0)), 0);
  }
  // Orange above the neutral value and blue below it; entropy has one side. ``size`` is what gets the full colour.
  const kinds = {
    // Most tokens have next to no influence, so the square root, and a scale for each response.
    influence: { of: (value) => Math.sign(value) * Math.sqrt(Math.abs(value)),
      size: (response) => Math.sqrt(largest(response.influence || [])),
      words: "Orange raised the entropy, blue lowered it; full colour: the largest of the response, shade by square root." },
    entropy: { of: (value) => value, words: "From no colour at 0 nats to full colour at " },
    advantage: { of: (value) => value, words: "Orange positive, blue negative; full colour at \u00b1" },
    ratio: { of: (value) => Math.log(value), least: 0.05,
      words: "Orange above 1, blue below 1, shade by its logarithm; full colour at a factor of " },
  };
  for (const name of ["entropy", "advantage", "ratio"]) {
    const kind = kinds[name];
    const most = responses.map((response) => largest((response[name] || []).filter((value) => value !== null).map(kind.of)));
    const size = Math.max(largest(most), kind.least || 1e-12);
    kind.size = () => size;
    kind.words += number(name === "ratio" ? Math.exp(size) : size) + (name === "entropy" ? " nats." : ".");
  }
  function color(name, response, index) {
    const value = (response[name] || [])[index] ?? null, kind = kinds[name], size = kind.size(response);
    if (value === null || !(size > 0)) return "transparent";
    const share = Math.max(-1, Math.min(1, kind.of(value) / size));
    const tone = name === "entropy" ? "136,84,208" : share > 0 ? "230,126,0" : "0,114,178";
    return "rgba(" + tone + "," + (0.75 * Math.abs(share)).toFixed(3) + ")";
  }
  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function visible(text) {
    return text.replace(/\n/g, "\u21b5\n");
  }
  function draw(response) {
    const block = element("div", "response");
    block.append(element("p", "", response.run + " \u00b7 step " + response.step + 
      (response.update === null ? "" : " \u00b7 update " + (response.update + 1)) +
      " \u00b7 reward " + response.reward + (response.cut ? " \u00b7 " + response.cut + " more tokens not shown" : "")));
    const code = element("code", "");
    code.append(element("span", "prompt", visible(response.prompt)));
    response.tokens.forEach(function (text, index) {
      const token = element("span", "token", visible(text));
      shown.set(token, [response, index]);
      code.append(token);
    });
    block.append(code);
    return block;
  }
  function paint() {
    const name = controls.color.value;
    for (const [token, [response, index]] of shown) token.style.backgroundColor = color(name, response, index);
    document.getElementById("token-scale").textContent = kinds[name].words;
  }
  function options(select, values, words) {
    const kept = select.value;
    select.replaceChildren();
    for (const value of ["", ...new Set(values.map(String))]) select.append(new Option(value === "" ? words : value, value));
    select.value = [...select.options].some((option) => option.value === kept) ? kept : "";
  }
  function sum(values) {
    return values.reduce((total, value) => total + (value || 0), 0);
  }
  const orders = {
    surprise: (response) => -sum(response.logprobs) / Math.max(response.logprobs.length, 1),
    influence: (response) => sum((response.influence || []).map(Math.abs)),
  };
  const MOST_DRAWN = 96;
  function choose() {
    const run = controls.run.value, step = controls.step.value, answer = controls.answer.value;
    const chosen = responses.filter((response) =>
      (run === "" || response.run === run) && (step === "" || String(response.step) === step) &&
      (answer === "" || response.correct === (answer === "correct")));
    const size = orders[controls.order.value];
    if (size) chosen.sort((first, second) => size(second) - size(first));
    shown.clear();
    tip.hidden = true;
    place.replaceChildren(...chosen.slice(0, MOST_DRAWN).map(draw));
    const more = chosen.length - MOST_DRAWN;
    if (!chosen.length) place.append(element("p", "note", "No response of this kind was logged."));
    if (more > 0) place.append(element("p", "note", more + " more of this kind: choose a step or an answer."));
    paint();
  }
  function describe(event) {
    const found = shown.get(event.target);
    if (!found) { tip.hidden = true; return; }
    const [response, index] = found;
    const at = (name) => response[name] ? number(response[name][index]) : "not computed";
    tip.textContent = [
      "influence " + at("influence") + " nats", "entropy " + at("entropy") + " nats",
      "probability " + number(Math.exp(response.logprobs[index])), "advantage " + at("advantage"),
      "ratio " + at("ratio"), "coefficient " + at("coefficient"),
    ].join("\n");
    tip.hidden = false;
    const box = event.target.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(left, 8) + window.scrollX + "px";
    tip.style.top = box.bottom + window.scrollY + 6 + "px";
  }
  options(controls.run, responses.map((response) => response.run), "all");
  options(controls.step, responses.map((response) => response.step), "all");
  controls.run.value = responses[0].run;
  controls.color.addEventListener("change", paint);
  for (const name of ["order", "run", "step", "answer"]) controls[name].addEventListener("change", choose);
  for (const name of ["pointerover", "click"]) place.addEventListener(name, describe);
  place.addEventListener("pointerleave", function () { tip.hidden = true; });
  choose();
  document.documentElement.dataset.tokens = String(responses.length);
});
