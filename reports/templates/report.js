"use strict";
(() => {
  const root = document.documentElement;
  const { figures, dark } = JSON.parse(document.getElementById("plot-data").textContent);
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 640px)");
  const PRINT_WIDTH = 680; // CSS pixels: inside A4 and US Letter with the margins of the style sheet
  let chosen = null; // the theme the reader asked for; null follows the system
  let printing = false;

  const theme = () => (printing ? "light" : chosen ?? (systemDark.matches ? "dark" : "light"));

  // Figures hold light colours only; below any key that names a colour they are swapped.
  const painted = (value, inColour) => {
    if (typeof value === "string") return inColour ? dark[value.toLowerCase()] ?? value : value;
    if (Array.isArray(value)) return value.map((item) => painted(item, inColour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, painted(item, inColour || /colou?r/i.test(key))]),
    );
  };

  const draw = (id) => {
    const element = document.getElementById(id);
    const figure = theme() === "dark" ? painted(figures[id], false) : structuredClone(figures[id]);
    const layout = figure.layout;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: theme() === "dark" ? "#23292f" : "#ffffff" };
    layout.dragmode = window.matchMedia("(pointer: coarse)").matches ? false : "zoom";
    if (element.classList.contains("square") && narrow.matches && !printing) {
      layout.height = element.clientWidth + 30;
      for (const trace of figure.data) trace.showscale = false;
    }
    if (printing) Object.assign(layout, { width: PRINT_WIDTH, autosize: false });
    return Plotly.react(element, figure.data, layout, {
      displayModeBar: false,
      responsive: true,
      showTips: false,
    });
  };

  const drawAll = () => Promise.all(Object.keys(figures).map(draw));

  const applyTheme = () => {
    if (chosen) root.dataset.theme = chosen;
    const other = theme() === "dark" ? "Light" : "Dark";
    document.getElementById("theme-word").textContent = other;
    return drawAll();
  };

  document.getElementById("theme").addEventListener("click", () => {
    chosen = theme() === "dark" ? "light" : "dark";
    applyTheme();
  });
  narrow.addEventListener("change", drawAll);
  systemDark.addEventListener("change", () => chosen || applyTheme());

  // Paper is light and narrow, whatever the screen is.
  const opened = [];
  window.addEventListener("beforeprint", () => {
    printing = true;
    const spec = document.getElementById("spec");
    if (spec && !spec.open) {
      spec.open = true;
      opened.push(spec);
    }
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    while (opened.length) opened.pop().open = false;
    drawAll();
  });

  // Sorting: missing values (empty key) stay last in both directions, equal ones keep their order.
  const compare = (a, b, numeric, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? Number(a) - Number(b) || 0 : a.localeCompare(b, "en", { numeric: true }));
  };

  const sortBy = (header) => {
    const table = header.closest("table");
    const column = header.cellIndex;
    const numeric = "number" in header.querySelector("button").dataset;
    const before = header.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending";
    const next = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", next);
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [row.cells[column].dataset.key, row]);
    const sign = next === "ascending" ? 1 : -1;
    keyed.sort(([a], [b]) => compare(a, b, numeric, sign));
    body.replaceChildren(...keyed.map(([, row]) => row));
  };

  for (const button of document.querySelectorAll("table.sortable button.sort")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }

  const choice = (id, chosenButton) => {
    const group = document.getElementById(id);
    if (!group) return;
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      chosenButton(button);
    });
  };

  const showEdge = (edge) => {
    for (const cell of document.querySelectorAll("#layer-table [data-edge]")) {
      cell.hidden = edge !== "all" && cell.dataset.edge !== edge;
    }
  };
  showEdge("0");
  choice("edge-choice", (button) => {
    showEdge(button.dataset.edge);
    const shown = document.getElementById("edge-shown");
    if (shown) shown.textContent = button.textContent;
  });

  choice("confusion-choice", (button) => {
    figures["plot-confusion"].data.forEach((trace, index) => {
      trace.visible = String(index) === button.dataset.trace;
    });
    draw("plot-confusion");
  });

  const filter = document.getElementById("layer-filter");
  filter?.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    const rows = [...document.querySelectorAll("#layer-table tbody tr")];
    let shown = 0;
    for (const row of rows) {
      row.hidden = ![row.cells[1], row.cells[2]].some((cell) =>
        cell.dataset.key.toLowerCase().includes(wanted),
      );
      shown += !row.hidden;
    }
    document.getElementById("layer-shown").textContent = wanted ? `${shown} of ${rows.length}` : "";
  });

  applyTheme().then(() => {
    root.dataset.ready = "true";
  });
})();
