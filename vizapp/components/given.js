// A file for the person to keep. data: bytes: a line of JSON {click, name, type}, and what is in the file.

export default function (component) {
  if (!component.data) return;
  const bytes = new Uint8Array(component.data);
  const end = bytes.indexOf(10);
  const told = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const kept = (window.vizappKept ??= new Set());
  if (kept.has(told.click)) return; // the page was drawn again
  kept.add(told.click);
  const address = URL.createObjectURL(new Blob([bytes.subarray(end + 1)], { type: told.type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = told.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
