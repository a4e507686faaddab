// What a report's page does in the browser: sorts and filters leaderboards, draws the figures in the reader's colours,
// and plays what a transformer learnt. Data come from JSON blocks; no text of theirs is ever taken for markup or a key.
(() => {
  "use strict";

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const themes = read("stnbench-themes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PRINT_WIDTH = 680;
  const NARROW = 560;
  const KEPT = 7; // the weight from which on a column stays, however narrow the screen
  let isPrinting = false;
  let folded = []; // what was closed before printing
  const theme = () => (dark.matches && !isPrinting ? themes.dark : themes.light);

  document.documentElement.classList.add("has-script");
  all("[hidden][data-switch], [hidden][data-needs-script]").forEach((element) => {
    element.hidden = false;
  });

  // ---- tables ----------------------------------------------------------------------------------------------------

  const collator = new Intl.Collator("en", { numeric: true });
  const tables = new Map(); // the state of each table that has filters

  function valueOf(cell) {
    const said = cell.dataset.sort;
    if (said === undefined || said === "") return null;
    return Number.isNaN(Number(said)) ? said : Number(said);
  }

  function compare(one, other) {
    return typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other);
  }

  function sortTable(table, heading) {
    const falls = heading.getAttribute("aria-sort")
      ? heading.getAttribute("aria-sort") === "ascending"
      : heading.dataset.first === "descending";
    const column = heading.cellIndex;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row.cells[column]), at: Number(row.dataset.at) }));
    rows.sort((one, other) => {
      if (one.value === null || other.value === null) {
        if (one.value === other.value) return one.at - other.at;
        return one.value === null ? 1 : -1; // what is not known comes last, whichever way
      }
      return (falls ? -1 : 1) * compare(one.value, other.value) || one.at - other.at;
    });
    all("th[aria-sort]", table).forEach((old) => old.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map((item) => item.row));
    filterTable(table);
  }

  /** Shows the rows that match; of all rows the first ones alone, until more are asked for. */
  function filterTable(table) {
    const state = tables.get(table);
    if (!state) return;
    const words = state.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = all("select", state.form).filter((select) => select.value !== "");
    const isFiltered = words.length > 0 || chosen.length > 0 || state.picked !== null;
    const most = isFiltered || state.isWhole ? Infinity : Number(table.dataset.first);
    const found = new Set();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const said = row.textContent.toLowerCase();
      const at = Number(row.dataset.at);
      const isFound =
        words.every((word) => said.includes(word)) &&
        chosen.every((select) => row.getAttribute(`data-f${select.dataset.facet}`) === select.value);
      if (isFound) found.add(at);
      const kept = isFound && (state.picked === null || state.picked.has(at));
      row.hidden = !kept || shown >= most;
      shown += row.hidden ? 0 : 1;
    }
    const count = table.tBodies[0].rows.length;
    state.form.querySelector("output").textContent = shown === count ? `${count} rows` : `${shown} of ${count} rows`;
    if (state.more) state.more.hidden = isFiltered || count <= Number(table.dataset.first);
    const isNarrowed = words.length > 0 || chosen.length > 0;
    state.followers.forEach((follow) => follow(isNarrowed ? found : null));
  }

  function showColumn(table, index, isShown) {
    for (const row of table.rows) if (row.cells.length > index) row.cells[index].hidden = !isShown;
  }

  /** Hides the least important columns until the table fits its box, unless the reader chose columns. */
  function fitColumns(table) {
    const state = tables.get(table);
    if (!state || state.hasChosen || !table.offsetParent) return;
    const headings = [...table.tHead.rows[0].cells];
    const box = table.parentElement;
    headings.forEach((heading, index) => showColumn(table, index, true));
    const order = headings
      .map((heading, index) => ({ index, weight: Number(heading.dataset.weight) }))
      .filter((item) => item.weight < KEPT)
      .sort((one, other) => one.weight - other.weight || other.index - one.index);
    while (table.scrollWidth > box.clientWidth + 1 && order.length) showColumn(table, order.shift().index, false);
    state.boxes.forEach((input, index) => { if (input) input.checked = !headings[index].hidden; });
  }

  function setUpChooser(table, state) {
    const list = state.form.querySelector(".chooser div");
    state.boxes = [...table.tHead.rows[0].cells].map((heading, index) => {
      if (index === 0) return null; // what names a row stays
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "checkbox";
      input.checked = true;
      input.addEventListener("change", () => {
        state.hasChosen = true;
        showColumn(table, index, input.checked);
      });
      label.append(input, heading.textContent);
      list.append(label);
      return input;
    });
  }

  function setUpTable(table) {
    all("thead th button", table).forEach((button) => {
      button.addEventListener("click", () => sortTable(table, button.closest("th")));
    });
    const form = document.getElementById(table.dataset.filter || "");
    if (!form) return;
    const more = document.querySelector(`[data-more="${table.id}"]`);
    const state = { form, search: form.querySelector("input[type=search]"), more, isWhole: false, hasChosen: false, boxes: [], picked: null, followers: [] };
    tables.set(table, state);
    setUpChooser(table, state);
    const update = () => filterTable(table);
    form.addEventListener("input", (event) => { if (!event.target.closest(".chooser")) update(); });
    form.addEventListener("reset", () => window.setTimeout(() => {
      state.hasChosen = false;
      state.picked = null;
      state.followers.forEach((follow) => follow(null, true));
      fitColumns(table);
      update();
    }));
    form.addEventListener("submit", (event) => event.preventDefault());
    if (more) {
      const said = more.textContent;
      more.addEventListener("click", () => {
        state.isWhole = !state.isWhole;
        more.textContent = state.isWhole ? `Show the first ${table.dataset.first} rows` : said;
        update();
      });
    }
    update(); // a browser may keep what was typed before the page was loaded again
    fitColumns(table);
  }

  all("table.board").forEach(setUpTable);
  const fitAll = () => tables.forEach((_, table) => fitColumns(table));
  window.addEventListener("resize", fitAll);
  all("details").forEach((details) => details.addEventListener("toggle", fitAll));

  // The name of a configuration leads to its trials.
  all("a[data-find]").forEach((link) => {
    link.addEventListener("click", () => {
      const target = document.querySelector(link.getAttribute("href"));
      const table = target && target.querySelector("table.board");
      const state = table && tables.get(table);
      if (!state) return;
      state.search.value = link.dataset.find;
      filterTable(table);
    });
  });

  // ---- figures ---------------------------------------------------------------------------------------------------

  const VERDICTS = themes.verdicts; // names, from good to bad
  const faded = (colour, share) => `${colour}${Math.round(share * 255).toString(16).padStart(2, "0")}`;

  /** The colour between a line (0) and the strong end of the scale of one hue (1). */
  function hue(share) {
    const [weak, strong] = [theme().line, theme().high].map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    const mixed = weak.map((part, index) => Math.round(part + share * (strong[index] - part)));
    return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
  }

  function colourOf(name) {
    if (typeof name === "string" && name.startsWith("hue ")) return hue(Number(name.slice(4)));
    if (typeof name === "number") return theme().lines[name % theme().lines.length];
    if (VERDICTS.includes(name)) return theme().verdicts[VERDICTS.indexOf(name)];
    return ["accent", "faint", "good", "bad", "line"].includes(name) ? theme()[name] : theme().ink;
  }

  function paint(trace) {
    const painted = structuredClone(trace);
    const meta = trace.meta || {};
    if (meta.scale === "one hue") {
      painted.colorscale = [[0, theme().low], [1, theme().high]];
    } else if (meta.scale === "verdicts") {
      const colours = theme().verdicts;
      painted.colorscale = colours.flatMap((colour, index) => [
        [index / colours.length, colour],
        [(index + 1) / colours.length, colour],
      ]);
    }
    if (meta.colour === undefined) return painted;
    const names = Array.isArray(meta.colour) ? meta.colour : null;
    const colour = names ? names.map(colourOf) : colourOf(meta.colour);
    if (trace.fill) {
      painted.fillcolor = faded(colour, 0.12);
      painted.line = { ...painted.line, width: 0, color: colour };
      return painted;
    }
    painted.marker = { ...painted.marker, color: colour };
    if (!names) painted.line = { ...painted.line, color: colour };
    for (const error of [painted.error_x, painted.error_y]) {
      if (error) error.color = names ? faded(theme().faint, 0.55) : colour;
    }
    return painted;
  }

  /** Black or white, whichever can be read better on a colour: at least 4.58 to 1 on any. */
  function inkOn(colour) {
    const [red, green, blue] = colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
  }

  /** Plotly writes the numbers of a heat map in grey or white, of which the grey is too weak on its middle colours. */
  function writeLegibly(element) {
    const heat = (element._fullData || []).find((trace) => trace.type === "heatmap" && trace.texttemplate);
    if (!heat) return;
    const [weak, strong] = [theme().low, theme().high].map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    element.querySelectorAll(".heatmap-label text").forEach((text) => {
      const { z } = text.__data__;
      const share = heat.zmax > heat.zmin ? (z - heat.zmin) / (heat.zmax - heat.zmin) : 0;
      text.style.fill = inkOn(weak.map((part, index) => part + Math.min(Math.max(share, 0), 1) * (strong[index] - part)));
    });
  }

  function template(width) {
    const { ink, faint, line, panel } = theme();
    const isNarrow = width < NARROW;
    const axis = {
      gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true,
      title: { standoff: 10, font: { color: faint, size: isNarrow ? 11 : 13 } }, tickfont: { color: faint },
    };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: isNarrow ? 11 : 13, color: ink },
        margin: isNarrow ? { l: 48, r: 8, t: 12, b: 44 } : { l: 60, r: 16, t: 16, b: 52 },
        xaxis: axis,
        yaxis: axis,
        legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { color: ink } },
        hoverlabel: { bgcolor: panel, bordercolor: line, font: { color: ink } },
        hovermode: "closest",
        dragmode: isNarrow || window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
        coloraxis: { colorbar: { outlinewidth: 0 } },
      },
    };
  }

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], // these alone: others send charts elsewhere
  };
  const BRUSHED = { ...CONFIG, modeBarButtons: [["select2d", "toImage"]] };
  const figures = all(".plot").map((element) => ({
    element,
    views: read(element.dataset.figure),
    view: 0,
    isDrawn: false,
    found: null, // the rows of the linked table that its own filters leave; null for all
    boxes: [], // what was chosen on the axes of parallel coordinates
  }));

  // ---- parallel coordinates, tied to a table -----------------------------------------------------------------------

  /** The ranges that the boxes keep on each axis; a box between two axes is meant for the nearer one. */
  function rangesOf(figure, link) {
    const ranges = new Map();
    for (const box of figure.boxes) {
      const [left, right] = [Math.min(box.x0, box.x1), Math.max(box.x0, box.x1)];
      const range = [Math.min(box.y0, box.y1), Math.max(box.y0, box.y1)];
      const inside = [...Array(link.axes).keys()].filter((axis) => axis >= left && axis <= right);
      const nearest = Math.min(Math.max(Math.round((left + right) / 2), 0), link.axes - 1);
      for (const axis of inside.length ? inside : [nearest]) ranges.set(axis, [...(ranges.get(axis) || []), range]);
    }
    return ranges;
  }

  /** The rows of the lines that cross every axis within one of its ranges; null where nothing is chosen. */
  function pickedRows(figure, view) {
    const ranges = rangesOf(figure, view.link);
    if (!ranges.size) return null;
    const picked = new Set();
    view.data.forEach((trace, index) => view.link.rows[index].forEach((row, place) => {
      const start = place * (view.link.axes + 1); // a gap stands behind each line
      const crosses = (axis, own) => {
        const y = trace.y[start + axis];
        return y !== null && own.some(([low, high]) => y >= low && y <= high);
      };
      if ([...ranges].every(([axis, own]) => crosses(axis, own))) picked.add(row);
    }));
    return picked;
  }

  /** The traces with the lines that are kept in their colours, over the others. */
  function linkedTraces(figure, view) {
    const picked = pickedRows(figure, view);
    if (!picked && !figure.found) return view.data;
    const isKept = (row) => (!picked || picked.has(row)) && (!figure.found || figure.found.has(row));
    const length = view.link.axes + 1;
    const part = (trace, index, wanted) => {
      const places = [...view.link.rows[index].keys()].filter((place) => isKept(view.link.rows[index][place]) === wanted);
      const cut = (values) => places.flatMap((place) => values.slice(place * length, (place + 1) * length));
      return { ...trace, x: cut(trace.x), y: cut(trace.y), customdata: cut(trace.customdata) };
    };
    const others = view.data.map((trace, index) => ({
      ...part(trace, index, false), mode: "lines", opacity: 0.35, hoverinfo: "skip", hovertemplate: null, meta: { colour: "line" },
    }));
    return [...others, ...view.data.map((trace, index) => part(trace, index, true))];
  }

  function linkTable(figure) {
    const view = figure.views[0];
    const table = view.link && document.getElementById(view.link.table);
    const state = table && tables.get(table);
    if (!state) return;
    state.followers.push((found, isReset) => {
      const isSame = !isReset && (found === null ? figure.found === null : figure.found !== null && found.size === figure.found.size && [...found].every((row) => figure.found.has(row)));
      if (isSame) return;
      figure.found = found;
      if (isReset) figure.boxes = [];
      if (figure.isDrawn) draw(figure);
    });
    figure.pick = () => {
      figure.boxes = (figure.element.layout.selections || []).map(({ x0, x1, y0, y1 }) => ({ x0, x1, y0, y1 }));
      state.picked = pickedRows(figure, view);
      filterTable(table);
      draw(figure);
    };
    filterTable(table); // what was typed before the page was loaded again
  }

  function draw(figure) {
    if (!window.Plotly) return;
    const view = figure.views[figure.view];
    const width = isPrinting ? PRINT_WIDTH : figure.element.clientWidth;
    const named = view.data.filter((trace) => trace.name && view.data.length > 1).length;
    const height = view.height + (width < NARROW ? 12 * named : 0); // a narrow legend is a long one
    figure.element.style.height = `${height}px`;
    const size = isPrinting ? { width, height, autosize: false } : { autosize: true };
    const layout = { ...structuredClone(view.layout), ...size, template: template(width) };
    if (width < NARROW && layout.annotations) layout.annotations.forEach((note) => { note.font = { size: 10 }; });
    (layout.annotations || []).forEach((note) => {
      if (note.name === "over lines") note.bgcolor = faded(theme().panel, 0.8);
    });
    if (view.link) {
      layout.dragmode = layout.template.layout.dragmode && "select";
      layout.selections = figure.boxes.map((box) => ({ ...box, type: "rect", line: { color: theme().accent, width: 1 } }));
    }
    const traces = view.link ? linkedTraces(figure, view) : view.data;
    window.Plotly.react(figure.element, traces.map(paint), layout, view.link ? BRUSHED : CONFIG);
    if (!figure.isDrawn) figure.element.on("plotly_afterplot", () => writeLegibly(figure.element));
    writeLegibly(figure.element);
    if (figure.pick && !figure.isDrawn) {
      // Plotly still changes its selections while it tells of them.
      const soonPick = () => window.setTimeout(figure.pick);
      ["plotly_selected", "plotly_deselect"].forEach((name) => figure.element.on(name, soonPick));
    }
    figure.isDrawn = true;
  }

  /** Plotly comes compressed; it is unpacked when the first figure is near the screen. */
  let unpacking = null;
  async function unpackPlotly() {
    const packed = document.getElementById("stnbench-plotly").textContent;
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const address = URL.createObjectURL(new Blob([await new Response(stream).blob()], { type: "text/javascript" }));
    await new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.onload = resolve;
      script.onerror = reject;
      script.src = address;
      document.head.append(script);
    });
    URL.revokeObjectURL(address);
  }

  const ready = () => {
    unpacking = unpacking || unpackPlotly();
    return unpacking;
  };
  if (document.getElementById("stnbench-plotly")) {
    window.setTimeout(ready, 1500); // so that figures off the screen can be printed
  }

  function drawSoon(figure) {
    ready().then(() => { if (!figure.isDrawn) draw(figure); });
  }

  const redraw = () => figures.filter((figure) => figure.isDrawn).forEach(draw);
  const soon = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const figure = figures.find((one) => one.element === entry.target);
        if (entry.isIntersecting && !figure.isDrawn) drawSoon(figure);
      }
    },
    { rootMargin: "800px" },
  );
  figures.forEach(linkTable);
  figures.forEach((figure) => soon.observe(figure.element));
  dark.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    isPrinting = true;
    folded = all("details:not([open])");
    folded.forEach((details) => { details.open = true; });
    figures.forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    isPrinting = false;
    folded.forEach((details) => { details.open = false; });
    redraw();
  });

  all("[data-switch]").forEach((group) => {
    const figure = figures.find((one) => one.element.dataset.figure === group.dataset.switch);
    const select = group.querySelector("select");
    if (select) {
      select.addEventListener("input", () => {
        figure.view = Number(select.value);
        draw(figure);
      });
    }
    all("button", group).forEach((button) => {
      button.addEventListener("click", () => {
        figure.view = Number(button.dataset.view);
        all("button", group).forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
        draw(figure);
      });
    });
  });

  // ---- what a transformer learnt -----------------------------------------------------------------------------------

  const REGION_COLOURS = ["#ffffff", "#ffcd50", "#64d2ff", "#ff8cdc"];
  const SHOWN = 96; // pixels of an input as it is shown

  /** Where in the image, in its pixels, a point of the output lies: bilinear between the points of the lattice. */
  function inputPlace(points, side, across, down, width, height) {
    const column = Math.min(Math.floor(across), side - 2);
    const row = Math.min(Math.floor(down), side - 2);
    const right = across - column;
    const below = down - row;
    const at = (r, c, axis) => points[2 * (r * side + c) + axis];
    const mixed = (axis) =>
      (1 - below) * ((1 - right) * at(row, column, axis) + right * at(row, column + 1, axis)) +
      below * ((1 - right) * at(row + 1, column, axis) + right * at(row + 1, column + 1, axis));
    return [((mixed(0) / 1000 + 1) / 2) * width - 0.5, ((mixed(1) / 1000 + 1) / 2) * height - 0.5];
  }

  function sampled(image, points, side, fill) {
    const { width, height, data } = image;
    const output = new ImageData(width, height);
    const pixel = (x, y, channel) =>
      x < 0 || y < 0 || x >= width || y >= height ? fill : data[4 * (y * width + x) + channel];
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const across = ((column + 0.5) / width) * (side - 1);
        const down = ((row + 0.5) / height) * (side - 1);
        const [x, y] = inputPlace(points, side, across, down, width, height);
        const [left, top] = [Math.floor(x), Math.floor(y)];
        const [right, below] = [x - left, y - top];
        const at = 4 * (row * width + column);
        for (let channel = 0; channel < 3; channel += 1) {
          output.data[at + channel] =
            (1 - below) * ((1 - right) * pixel(left, top, channel) + right * pixel(left + 1, top, channel)) +
            below * ((1 - right) * pixel(left, top + 1, channel) + right * pixel(left + 1, top + 1, channel));
        }
        output.data[at + 3] = 255;
      }
    }
    return output;
  }

  function borderOf(side) {
    const border = [];
    for (let index = 0; index < side - 1; index += 1) border.push(index);
    for (let index = 0; index < side - 1; index += 1) border.push(index * side + side - 1);
    for (let index = side - 1; index > 0; index -= 1) border.push((side - 1) * side + index);
    for (let index = side - 1; index > 0; index -= 1) border.push(index * side);
    return border;
  }

  function drawInput(canvas, picture, regions, side, share) {
    const context = canvas.getContext("2d");
    const margin = canvas.width * share; // regions may reach beyond the image
    const span = canvas.width - 2 * margin;
    context.fillStyle = "#24262b";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, margin, margin, span, span);
    regions.forEach((points, number) => {
      const place = (index, axis) => margin + ((points[2 * index + axis] / 1000 + 1) / 2) * span;
      for (const [colour, width] of [["rgba(0,0,0,.6)", 9], [REGION_COLOURS[number % REGION_COLOURS.length], 5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.lineJoin = "round";
        context.beginPath();
        borderOf(side).forEach((index) => context.lineTo(place(index, 0), place(index, 1)));
        context.closePath();
        context.stroke();
      }
    });
  }

  async function setUpWatch(box) {
    const watched = read(box.dataset.watch);
    const [slider, play] = [box.querySelector("input"), box.querySelector("button")];
    const columns = all(".probe", box);
    const pictures = all("img", box);
    await Promise.all(pictures.map((picture) => picture.decode()));
    const images = pictures.map((picture) => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      return context.getImageData(0, 0, canvas.width, canvas.height);
    });
    const farthest = Math.max(...watched.transformers.flat(3).map(Math.abs)) / 1000;
    const beyond = Math.min(Math.max(farthest, 1.1), 2) - 1; // half images
    const share = beyond / (2 + 2 * beyond);
    const inputs = columns.map((column, index) => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 3 * SHOWN;
      pictures[index].replaceWith(canvas);
      return canvas;
    });
    const outputs = columns.map((column, index) =>
      watched.transformers.map(() => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [images[index].width, images[index].height];
        canvas.className = "output";
        column.append(canvas);
        return canvas;
      }),
    );

    function show(moment) {
      columns.forEach((_, probe) => {
        const regions = watched.transformers.map((points) => points[moment][probe]);
        drawInput(inputs[probe], pictures[probe], regions, watched.side, share);
        regions.forEach((points, number) => {
          const output = sampled(images[probe], points, watched.side, watched.fill);
          outputs[probe][number].getContext("2d").putImageData(output, 0, 0);
        });
      });
      slider.value = String(moment);
      slider.setAttribute("aria-valuetext", watched.moments[moment]);
      box.querySelector("output").textContent = watched.moments[moment];
    }

    let timer = 0;
    const stop = () => {
      window.clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    };
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value));
    });
    play.addEventListener("click", () => {
      if (timer) {
        stop();
        return;
      }
      let moment = Number(slider.value) === watched.moments.length - 1 ? 0 : Number(slider.value);
      show(moment);
      play.textContent = "Pause";
      timer = window.setInterval(() => {
        moment += 1;
        show(moment);
        if (moment === watched.moments.length - 1) stop();
      }, 400);
    });
    show(watched.moments.length - 1);
  }

  all("[data-watch]:not([hidden])").forEach(setUpWatch);
  all("[data-films]").forEach((group) => {
    const films = all("[data-watch]", document.getElementById(group.dataset.films));
    const set = new Set([films[0]]);
    const choose = (chosen) => {
      films.forEach((film) => { film.hidden = film !== chosen; });
      if (!set.has(chosen)) setUpWatch(chosen);
      set.add(chosen);
    };
    const select = group.querySelector("select");
    select.addEventListener("input", () => choose(films[Number(select.value)]));
    choose(films[Number(select.value)]); // a browser may keep what was chosen before
  });

  // ---- pictures that move, for readers who asked for less of it ---------------------------------------------------

  async function hold(picture) {
    await picture.decode();
    const still = document.createElement("canvas");
    [still.width, still.height] = [picture.naturalWidth, picture.naturalHeight];
    still.getContext("2d").drawImage(picture, 0, 0);
    const play = document.createElement("button");
    play.type = "button";
    play.textContent = "Play the animation";
    play.addEventListener("click", () => {
      picture.hidden = !picture.hidden;
      still.hidden = !picture.hidden;
      play.textContent = picture.hidden ? "Play the animation" : "Stop the animation";
    });
    picture.hidden = true;
    picture.after(still, play);
  }

  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
    all(".gallery img[src^='data:image/gif']").forEach(hold);
  }
})();
