// Files that the page hands out: made here, in the browser, of what is shown.

/** Save `content` (a string or a Blob) as `filename`. */
export function save(filename, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = filename;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front: names
 * come out of event files, and anybody may have written those.
 */
export function csv(rows) {
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[\s]*[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A name that every file system takes. */
export function fileName(text, suffix) {
  return `${text.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60)}.${suffix}`;
}
