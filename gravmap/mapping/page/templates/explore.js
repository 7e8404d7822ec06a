"use strict";
// Paints the layers, shows the values under the pointer, and draws profiles. Bokeh draws, pans and zooms.
(() => {
  const grid = JSON.parse(document.getElementById("data").textContent);
  const [west, south, east, north] = grid.bounds;
  const TYPES = {uint8: Uint8Array, uint16: Uint16Array};
  const layers = new Map(grid.layers.map(layer => {
    const bytes = Uint8Array.from(atob(layer.data), letter => letter.charCodeAt(0));
    const values = new TYPES[layer.type](bytes.buffer);
    return [layer.key, {...layer, data: null, values, nodata: layer.type === "uint8" ? 255 : 65535}];
  }));
  const lithology = layers.get("lithology");
  const role = name => [...layers.values()].find(layer => layer.role === name);
  const residual = role("residual"), bouguer = role("bouguer");
  const probabilities = [...layers.values()].filter(layer => layer.class);
  const evidence = layers.get("evidence");
  const OUTCROP = 1, UNMAPPED = 5;  // of the evidence
  const THIN = "\u202f", MINUS = "\u2212";
  const byId = id => document.getElementById(id);

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // -- Values ------------------------------------------------------------------------------------------------------

  function cellAt(lon, lat) {
    const column = Math.floor((lon - west) / (east - west) * grid.columns);
    const row = Math.floor((north - lat) / (north - south) * grid.rows);
    return column >= 0 && column < grid.columns && row >= 0 && row < grid.rows ? row * grid.columns + column : -1;
  }

  function valueAt(layer, cell) {
    const stored = layer === undefined || cell < 0 ? undefined : layer.values[cell];
    return stored === undefined || stored === layer.nodata ? NaN : stored * layer.step + layer.least;
  }

  function classAt(layer, cell) {
    return cell < 0 ? undefined : layer.classes.find(each => each.index === layer.values[cell]);
  }

  const isPredicted = cell => grid.everywhere || (evidence !== undefined && evidence.values[cell] !== OUTCROP);

  // A value bilinear between the centres of cells; that of the cell itself where one of the four is no data.
  function between(layer, lon, lat) {
    const x = (lon - west) / (east - west) * grid.columns - 0.5, y = (north - lat) / (north - south) * grid.rows - 0.5;
    const left = Math.min(Math.max(Math.floor(x), 0), grid.columns - 2), top = Math.min(Math.max(Math.floor(y), 0), grid.rows - 2);
    const right = Math.min(Math.max(x - left, 0), 1), down = Math.min(Math.max(y - top, 0), 1), first = top * grid.columns + left;
    const [nw, ne, sw, se] = [first, first + 1, first + grid.columns, first + grid.columns + 1].map(cell => valueAt(layer, cell));
    const value = (nw * (1 - right) + ne * right) * (1 - down) + (sw * (1 - right) + se * right) * down;
    return Number.isFinite(value) ? value : valueAt(layer, cellAt(lon, lat));
  }

  function number(value, digits, signed) {
    const [whole, part] = Math.abs(value).toFixed(digits).split(".");
    const text = whole.replace(/\B(?=(\d{3})+$)/g, THIN) + (part === undefined ? "" : `.${part}`);
    const zero = Number(Math.abs(value).toFixed(digits)) === 0;
    return (zero ? "" : value < 0 ? MINUS : signed ? "+" : "") + text;
  }

  const digitsOf = layer => layer.unit === "m" ? 0 : layer.unit ? 1 : 2;

  // A thickness is not known to the metre.
  const rounded = (value, layer) => layer.unit === "m" ? Number(value.toPrecision(3)) : value;

  function written(value, layer) {
    if (!Number.isFinite(value)) return "–";
    if (layer.percent) return `${Math.round(100 * value)}${THIN}%`;
    return number(rounded(value, layer), digitsOf(layer), layer.signed) + (layer.unit ? THIN + layer.unit : "");
  }

  const degrees = (value, positive, negative) => `${Math.abs(value).toFixed(3)}°${THIN}${value < 0 ? negative : positive}`;
  const placeName = (lon, lat) => `${degrees(lat, "N", "S")}, ${degrees(lon, "E", "W")}`;

  // -- The picture of a layer --------------------------------------------------------------------------------------

  // As canvas stores a pixel: alpha, blue, green, red from the highest byte to the lowest.
  function pixel(colour) {
    const number = parseInt(colour.slice(1), 16);
    return (0xff000000 | (number & 0xff) << 16 | number & 0xff00 | number >> 16) >>> 0;
  }

  function tableOf(layer) {
    const table = new Uint32Array(layer.nodata + 1);  // no data stays transparent
    if (layer.kind === "classes") {
      for (const each of layer.classes) table[each.index] = pixel(each.colour);
      if (layer === evidence) table[UNMAPPED] = 0;
      return table;
    }
    const colours = layer.colours.map(pixel), last = colours.length - 1;
    for (let stored = 0; stored < layer.nodata; stored++) {
      const fraction = (stored * layer.step + layer.least - layer.low) / (layer.high - layer.low);
      table[stored] = colours[Math.round(Math.min(1, Math.max(0, fraction)) * last)];
    }
    return table;
  }

  function paint(layer, source) {
    const {rows, columns} = grid, table = tableOf(layer);
    // The class of the array that is there: Bokeh exports none.
    const Picture = source.get_column("image")[0].constructor;
    const picture = new Picture(new ArrayBuffer(4 * rows * columns), [rows, columns]);
    for (let row = 0; row < rows; row++) {
      const from = row * columns, to = (rows - 1 - row) * columns;  // Bokeh's first row is the southernmost
      for (let column = 0; column < columns; column++) picture[to + column] = table[layer.values[from + column]];
    }
    source.data = {image: [picture]};
  }

  // -- Legend and lists --------------------------------------------------------------------------------------------

  function classRow(each, asButton) {
    const row = element(asButton ? "button" : "div", "class");
    const swatch = element("span", "swatch");
    swatch.style.backgroundColor = each.colour;
    row.append(swatch, element("span", "", each.name), element("small", "", each.age));
    return row;
  }

  function showLegend(layer, show) {
    const legend = byId("legend");
    legend.replaceChildren();
    byId("legend-title").replaceChildren(layer.title, element("span", "unit", layer.unit ? `, ${layer.unit}` : ""));
    byId("note").textContent = layer.note ?? "";
    if (layer.kind === "classes") {
      const rocks = layer !== evidence;
      for (const each of layer.classes.filter(one => one.present)) {
        const row = classRow(each, rocks && probabilities.length > 0);
        if (rocks && probabilities.length) {
          row.title = `Probability of ${each.name}`;
          row.addEventListener("click", () => show(`probability_${each.index}`));
        }
        legend.append(row);
      }
      return;
    }
    const ramp = element("div", "ramp");
    ramp.style.background = `linear-gradient(to right, ${layer.colours.join(",")})`;
    const ticks = element("div", "ticks");
    const span = layer.high - layer.low;
    for (const value of [layer.low, layer.low + span / 2, layer.high]) {
      ticks.append(element("span", "", layer.percent ? written(value, layer) : number(value, span > 20 ? 0 : 1, layer.signed)));
    }
    legend.append(ramp, ticks);
  }

  // -- Under the pointer -------------------------------------------------------------------------------------------

  const bars = new Map();

  function makeBars(show) {
    for (const layer of probabilities) {
      const kind = lithology.classes.find(each => each.index === layer.class);
      const row = element("div", "bar"), track = element("span", "track"), fill = element("span", "fill");
      fill.style.backgroundColor = kind.colour;
      track.append(fill);
      const number = element("span");
      row.append(element("span", "", kind.name), track, number);
      row.title = `Probability of ${kind.name}: click for its map`;
      row.addEventListener("click", () => show(layer.key));
      byId("bars").append(row);
      bars.set(layer.class, {row, fill, number, layer});
    }
  }

  function read(lon, lat) {
    const cell = cellAt(lon, lat);
    byId("reading").dataset.cell = cell;
    if (cell < 0) return;
    byId("place").textContent = placeName(lon, lat);
    const kind = classAt(lithology, cell), ground = evidence === undefined ? undefined : classAt(evidence, cell);
    const title = byId("class");
    title.replaceChildren();
    if (kind === undefined) {
      title.append(element("span", "soft", ground?.index === UNMAPPED ? "Unmapped: no class" : "No data"));
    } else {
      const swatch = element("span", isPredicted(cell) ? "swatch ruled" : "swatch");
      swatch.style.backgroundColor = kind.colour;
      title.append(swatch, element("span", "", kind.name));
    }
    for (const [index, bar] of bars) {
      const value = valueAt(bar.layer, cell);
      bar.fill.style.width = `${Number.isFinite(value) ? 100 * value : 0}%`;
      bar.number.textContent = written(value, bar.layer);
      bar.row.classList.toggle("assigned", kind !== undefined && index === kind.index);
    }
    const values = byId("values");
    values.replaceChildren();
    const add = (name, text, id) => {
      const shown = element("dd", "", text);
      shown.id = `value-${id}`;
      values.append(element("dt", "", name), shown);
    };
    if (kind !== undefined) add("Class", isPredicted(cell) ? "predicted" : "as mapped", "origin");
    if (ground !== undefined) add("Evidence", ground.name, "evidence");
    const nothing = layers.get("null_model");
    if (nothing !== undefined) add("Without gravity", classAt(nothing, cell)?.name ?? "–", "null");
    const [median, low, high] = ["median", "p10", "p90"].map(name => layers.get(`thickness_${name}`));
    for (const layer of layers.values()) {
      if (layer.kind !== "quantity" || !layer.listed) continue;
      let text = written(valueAt(layer, cell), layer);
      if (layer === median && low && Number.isFinite(valueAt(median, cell))) {
        text += ` (${number(rounded(valueAt(low, cell), low), 0)}–${number(rounded(valueAt(high, cell), high), 0)})`;
      }
      add(layer.title, text, layer.key);
    }
  }

  // -- Profile -----------------------------------------------------------------------------------------------------

  function distanceKm([lon1, lat1], [lon2, lat2]) {
    const rad = Math.PI / 180, radius = grid.km_per_degree / rad;
    const half = Math.sin((lat2 - lat1) * rad / 2) ** 2
      + Math.cos(lat1 * rad) * Math.cos(lat2 * rad) * Math.sin((lon2 - lon1) * rad / 2) ** 2;
    return 2 * radius * Math.asin(Math.min(1, Math.sqrt(half)));
  }

  function setRange(range, values) {
    const known = values.filter(Number.isFinite);
    const low = Math.min(...known), high = Math.max(...known), margin = 0.08 * (high - low) || 1;
    range.setv(known.length ? {start: low - margin, end: high + margin} : {start: 0, end: 1});
  }

  function profile(first, last, models) {
    // Two samples to a cell, so that no cell on the way is passed over.
    const across = Math.hypot((last[0] - first[0]) / (east - west) * grid.columns, (last[1] - first[1]) / (north - south) * grid.rows);
    const count = Math.min(2000, Math.max(2, Math.ceil(2 * across)));
    const places = Array.from({length: count + 1}, (_, step) => first.map((from, axis) => from + (last[axis] - from) * step / count));
    const cells = places.map(place => cellAt(...place));
    let km = 0;
    const along = places.map((place, step) => step ? km += distanceKm(places[step - 1], place) : 0);
    const curves = {km: along};
    for (const [name, layer] of [["residual", residual], ["bouguer", bouguer]]) curves[name] = places.map(place => layer ? between(layer, ...place) : NaN);
    models.curves.data = curves;
    const runs = {y: [], left: [], right: [], colour: [], hatch: []};
    for (const [name, layer] of [["map", lithology], ["null model", layers.get("null_model")]]) {
      if (layer === undefined) continue;
      let open = null;
      cells.forEach((cell, step) => {
        const kind = classAt(layer, cell), hatch = kind && isPredicted(cell) ? "right_diagonal_line" : "blank";
        const left = step ? (along[step - 1] + along[step]) / 2 : 0;
        const right = step < count ? (along[step] + along[step + 1]) / 2 : along[step];
        if (open !== null && open.kind === kind && open.hatch === hatch) {
          runs.right[runs.right.length - 1] = right;
        } else if (kind === undefined) {
          open = null;
        } else {
          open = {kind, hatch};
          for (const [key, value] of Object.entries({y: name, left, right, colour: kind.colour, hatch})) runs[key].push(value);
        }
      });
    }
    models.runs.data = runs;
    models.plot.x_range.setv({start: 0, end: km || 1});
    setRange(models.plot.y_range, curves.residual);
    setRange(models.plot.extra_y_ranges.get?.("bouguer") ?? models.plot.extra_y_ranges.bouguer, curves.bouguer);
    byId("profile-title").textContent = `Profile from A (${placeName(...first)}) to B (${placeName(...last)}), ${km.toFixed(km < 100 ? 1 : 0)}${THIN}km`;
    document.body.classList.add("with-profile");
    return kilometre => {
      const step = along.findIndex(each => each >= kilometre);
      return places[step < 0 ? count : step];
    };
  }

  // -- Start -------------------------------------------------------------------------------------------------------

  function start() {
    const find = name => Bokeh.documents.map(each => each.get_model_by_name(name)).find(model => model != null);
    const map = find("map"), image = find("image"), track = find("track"), spot = find("spot"), kilometres = find("kilometres");
    // Which of several residuals it is.
    if (residual !== undefined) find("profile").left[0].axis_label = `${residual.title.replace("Residual gravity", "residual")}, ${residual.unit}`;
    const models = {plot: find("profile"), strips: find("strips"), curves: find("curves"), runs: find("runs")};

    const overlays = new Map();
    // Ruling would hide the colours of a quantity.
    const drawOverlays = () => {
      const rocks = ["lithology", "null_model"].includes(document.body.dataset.layer);
      for (const [name, {renderer, input}] of overlays) renderer.visible = input.checked && (name !== "ruled" || rocks);
    };

    function show(key) {
      const layer = layers.get(key);
      paint(layer, image);
      showLegend(layer, show);
      for (const input of document.querySelectorAll("#layers input")) input.checked = input.value === key;
      document.body.dataset.layer = key;
      drawOverlays();
    }

    for (const layer of layers.values()) {
      if (layer.listed === false) continue;
      const row = element("li"), label = element("label"), input = element("input");
      Object.assign(input, {type: "radio", name: "layer", value: layer.key});
      input.addEventListener("change", () => show(layer.key));
      label.append(input, element("span", "", layer.title));
      row.append(label);
      byId("layers").append(row);
    }
    for (const [name, title] of [["outlines", "Outlines of mapped outcrop"], ["ruled", "Ruling: predicted"], ["unmapped", "Dots: unmapped ground"]]) {
      const renderer = map.renderers.find(each => each.name === name);
      if (renderer === undefined) continue;
      const row = element("li"), label = element("label"), input = element("input");
      Object.assign(input, {type: "checkbox", checked: true, value: name});
      input.addEventListener("change", drawOverlays);
      overlays.set(name, {renderer, input});
      label.append(input, element("span", "", title));
      row.append(label);
      byId("overlays").append(row);
    }
    makeBars(show);
    show("lithology");

    // Kilometres are as long to the north as to the east: at first the whole map, later the place that was chosen.
    const stretch = 1 / Math.cos((south + north) / 2 * Math.PI / 180);
    function fit(whole) {
      const {inner_width: width, inner_height: height, x_range: x, y_range: y} = map;
      if (!(width > 0 && height > 0)) return;
      const wide = whole ? Math.max(east - west, (north - south) * stretch * width / height) * 1.02 : x.end - x.start;
      const tall = wide / stretch * height / width;
      const [lon, lat] = whole ? [(west + east) / 2, (south + north) / 2] : [(x.start + x.end) / 2, (y.start + y.end) / 2];
      const ends = {x: {start: lon - wide / 2, end: lon + wide / 2}, y: {start: lat - tall / 2, end: lat + tall / 2}};
      x.setv(whole ? {...ends.x, reset_start: ends.x.start, reset_end: ends.x.end} : ends.x);
      y.setv(whole ? {...ends.y, reset_start: ends.y.start, reset_end: ends.y.end} : ends.y);
    }
    let moved = false;
    const refit = () => fit(!moved);
    map.properties.inner_width.change.connect(refit);
    map.properties.inner_height.change.connect(refit);
    fit(true);
    // At the middle latitude of the map, as its proportions.
    const measure = () => kilometres.setv({start: 0, end: Math.abs(map.x_range.end - map.x_range.start) * grid.km_per_degree / stretch});
    map.x_range.change.connect(measure);
    measure();

    let ends = [], placeAt = null;
    const invitation = byId("profile-title").textContent;
    map.js_event_callbacks = new Map(Object.entries({
      mousemove: [event => read(event.x, event.y)],
      wheel: [() => { moved = true; }],
      pan: [() => { moved = true; }],
      reset: [() => { moved = false; fit(true); }],
      tap: [event => {
        read(event.x, event.y);  // there is no pointer over a touch screen
        if (cellAt(event.x, event.y) < 0) return;
        ends = ends.length === 1 ? [...ends, [event.x, event.y]] : [[event.x, event.y]];
        track.data = {x: ends.map(each => each[0]), y: ends.map(each => each[1]), name: ["A", "B"].slice(0, ends.length)};
        if (ends.length === 2) placeAt = profile(...ends, models);
        else byId("profile-title").textContent = `From A (${placeName(...ends[0])}): click the other end of the profile.`;
      }],
    }));
    const close = () => {
      ends = [], placeAt = null;
      track.data = {x: [], y: [], name: []};
      spot.data = {x: [], y: []};
      byId("profile-title").textContent = invitation;
      document.body.classList.remove("with-profile");
    };
    byId("profile-close").addEventListener("click", close);
    document.addEventListener("keydown", event => { if (event.key === "Escape") close(); });
    const follow = event => {
      if (placeAt === null) return;
      const place = placeAt(event.x);
      spot.data = {x: [place[0]], y: [place[1]]};
      read(...place);
    };
    const leave = () => { spot.data = {x: [], y: []}; };
    for (const plot of [models.plot, models.strips]) {
      plot.js_event_callbacks = new Map(Object.entries({mousemove: [follow], mouseleave: [leave]}));
    }
    document.body.dataset.ready = "yes";
  }

  function whenDrawn() {
    const drawn = globalThis.Bokeh?.documents?.length && Bokeh.documents.every(each => each.is_idle);
    if (drawn) start(); else setTimeout(whenDrawn, 30);
  }
  whenDrawn();
})();
