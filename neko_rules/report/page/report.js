"use strict";
// Charts of a report: drawn from the numbers in the page, with values under the pointer and series that can be hidden.

const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// Round numbers that cover an interval, at most `most` steps; without fractions where only whole numbers have a meaning.
function ticks(low, high, most, whole = false) {
  if (!(high > low)) return [low];
  const raw = Math.max((high - low) / Math.max(1, most), whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * (1 - 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step);
  return found;
}

// Four digits, in scientific notation where a number is very small or large.
function shown(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

// The path of a curve; a missing value is a gap.
function path(xs, ys, px, py) {
  let drawn = "", pen = "M";
  xs.forEach((x, i) => {
    if (ys[i] === null) { pen = "M"; return; }
    drawn += `${pen}${px(x).toFixed(1)} ${py(ys[i]).toFixed(1)}`;
    pen = "L";
  });
  return drawn;
}

// The index of the entry nearest to a value.
function nearest(xs, value) {
  let best = 0;
  xs.forEach((x, i) => { if (Math.abs(x - value) < Math.abs(xs[best] - value)) best = i; });
  return best;
}

function range(series, key) {
  let low = Infinity, high = -Infinity;
  for (const one of series) for (const v of one[key]) if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) return [0, 1];
  if (low === high) return [low - 0.5, high + 0.5];
  return [low, high];
}

if (typeof module !== "undefined") module.exports = { escaped, ticks, shown, path, nearest, range };

if (typeof document !== "undefined") {
  const hidden = new Set();
  const charts = [];

  class Chart {
    constructor(figure, spec) {
      this.spec = spec;
      this.box = figure.querySelector(".plot");
      this.names = [...new Set(spec.series.map((one) => one.group))];
      charts.push(this);
      this.draw();
      new ResizeObserver(() => { if (this.box.clientWidth !== this.width) this.draw(); }).observe(this.box);
    }

    colour(one) { return `var(--${one.colour || `c${this.names.indexOf(one.group) % 7}`})`; }

    visible() { return this.spec.series.filter((one) => !hidden.has(`${this.spec.scope}/${one.group}`)); }

    draw() {
      const { spec } = this, width = (this.width = Math.max(240, this.box.clientWidth)), height = spec.height || 230;
      const left = 54, right = 10, top = 8, bottom = 38, all = this.visible();
      const extent = spec.extent || [...range(spec.series, "x"), ...range(all, "y")], [x0, x1, low, high] = extent;
      const counted = spec.kind !== "points" && spec.series.every((one) => one.x.every(Number.isInteger));
      const pad = spec.kind === "points" ? 0.5 : 0.05 * (high - low), y0 = low - pad, y1 = high + pad;
      const px = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
      const py = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
      let inner = "";
      for (const t of ticks(y0, y1, 5)) {
        inner += `<line class="axis" x1="${left}" x2="${width - right}" y1="${py(t)}" y2="${py(t)}"/>`;
        inner += `<text x="${left - 6}" y="${py(t) + 4}" text-anchor="end">${shown(t)}</text>`;
      }
      for (const t of ticks(x0, x1, Math.min(8, Math.floor(width / 70)), counted))
        inner += `<text x="${px(t)}" y="${height - bottom + 16}" text-anchor="middle">${shown(t)}</text>`;
      inner += `<text x="${(left + width - right) / 2}" y="${height - 5}" text-anchor="middle">${escaped(spec.x)}</text>`;
      for (const one of all) {
        if (spec.kind === "points") {
          one.x.forEach((x, i) => {
            inner += `<circle cx="${px(x).toFixed(1)}" cy="${py(one.y[i]).toFixed(1)}" r="1.6" fill="${this.colour(one)}"/>`;
          });
        } else {
          const dash = one.dash ? ` stroke-dasharray="${escaped(one.dash)}"` : "";
          const d = path(one.x, one.y, px, py);
          if (one.x.length <= 30)
            one.x.forEach((x, i) => {
              if (one.y[i] === null) return;
              inner += `<circle cx="${px(x).toFixed(1)}" cy="${py(one.y[i]).toFixed(1)}" r="3" fill="${this.colour(one)}"/>`;
            });
          inner += `<path class="curve" data-name="${escaped(one.name)}" d="${d}" stroke="${this.colour(one)}"${dash}/>`;
        }
      }
      inner += '<line class="axis cursor" y1="8" y2="' + (height - bottom) + '" visibility="hidden"/>';
      const label = escaped(`${spec.y} over ${spec.x}`);
      this.box.innerHTML = `<svg role="img" aria-label="${label}" viewBox="0 0 ${width} ${height}" height="${height}">${inner}</svg>` +
        '<div class="tip" hidden></div>';
      const svg = this.box.querySelector("svg");
      const move = (event) => this.point(event, svg, { px, x0, x1, left, right, width, py });
      svg.addEventListener("pointermove", move);
      svg.addEventListener("pointerdown", move);
      svg.addEventListener("pointerleave", () => this.leave());
    }

    point(event, svg, at) {
      const bounds = svg.getBoundingClientRect(), scale = at.width / bounds.width;
      const x = at.x0 + (((event.clientX - bounds.left) * scale - at.left) / (at.width - at.left - at.right)) * (at.x1 - at.x0);
      const all = this.visible().filter((one) => one.x.length);
      if (!all.length) return;
      const tip = this.box.querySelector(".tip"), cursor = this.box.querySelector(".cursor");
      const first = all[0].x[nearest(all[0].x, x)];
      let words = `${escaped(this.spec.x)} ${shown(first)}`;
      if (this.spec.kind === "points") {
        const row = all[0].x.map((each, i) => (each === first ? all[0].y[i] : null)).filter((each) => each !== null);
        words += `<br>${escaped(this.spec.y)} ${row.slice(0, 12).join(", ")}${row.length > 12 ? " …" : ""}`;
      } else {
        for (const one of all)
          words += `<br><b style="color:${this.colour(one)}">${escaped(one.name)}</b> ${shown(one.y[nearest(one.x, x)])}`;
      }
      tip.innerHTML = words;
      tip.hidden = false;
      const place = at.px(first) / scale;
      tip.style.top = "8px";
      tip.style.left = place > bounds.width / 2 ? "" : `${place + 10}px`;
      tip.style.right = place > bounds.width / 2 ? `${bounds.width - place + 10}px` : "";
      cursor.setAttribute("x1", at.px(first));
      cursor.setAttribute("x2", at.px(first));
      cursor.setAttribute("visibility", "visible");
    }

    leave() {
      this.box.querySelector(".tip").hidden = true;
      this.box.querySelector(".cursor").setAttribute("visibility", "hidden");
    }
  }

  // A legend hides and shows a rule in all charts and tables of its scope.
  function legend(box) {
    const scope = box.dataset.scope;
    const names = [...new Set(charts.filter((c) => c.spec.scope === scope).flatMap((c) => c.names))];
    names.forEach((name, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.innerHTML = `<i style="border-color:var(--c${i % 7})"></i>${escaped(name)}`;
      button.addEventListener("click", () => {
        const key = `${scope}/${name}`, off = !hidden.has(key);
        if (off) hidden.add(key); else hidden.delete(key);
        button.setAttribute("aria-pressed", String(!off));
        for (const chart of charts) if (chart.spec.scope === scope) chart.draw();
        for (const row of document.querySelectorAll(`[data-scope="${CSS.escape(scope)}"] tr[data-rule="${CSS.escape(name)}"]`))
          row.hidden = off;
      });
      box.append(button);
    });
  }

  const theme = document.querySelector("#theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = (on) => {
    document.documentElement.dataset.theme = on ? "dark" : "light";
    theme.textContent = on ? "Light" : "Dark";
  };
  paint(dark.matches);
  theme.addEventListener("click", () => paint(document.documentElement.dataset.theme !== "dark"));
  const specs = JSON.parse(document.querySelector("#charts").textContent);
  for (const figure of document.querySelectorAll("figure[data-chart]")) new Chart(figure, specs[figure.dataset.chart]);
  document.querySelectorAll(".legend[data-scope]").forEach(legend);
}
