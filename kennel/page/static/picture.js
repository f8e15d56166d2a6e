// A photo on its way to the function: shown, and made smaller where a request could not hold it.

const LONGEST = 2048; // pixels; models look at some hundred

/** Show `file` in `image`; resolves to [width, height], or null for what this browser knows no picture in. */
export async function preview(file, image) {
  image.hidden = true;
  if (!(await readable(file))) throw new Error(`${file.name} is empty, or nothing that a browser can read.`);
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
  } catch {
    return null;
  }
  image.hidden = false;
  image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
  return [image.naturalWidth, image.naturalHeight];
}

/** Return {body, name, note}: the file itself, or a JPEG of it where it has too many bytes or pixels. */
export async function fit(file, image, size, limits) {
  const name = file.name || "photo";
  const pixels = size ? size[0] * size[1] : 0;
  if (file.size <= limits.max_bytes && pixels <= limits.max_pixels) return { body: file, name, note: [] };
  if (!size) throw new Error(`${name} has ${megabytes(file)}; a request holds ${(limits.max_bytes / 1e6).toFixed(1)} MB, and this browser cannot read it to make it smaller.`);
  let longest = LONGEST;
  let body = await drawn(image, size, longest);
  while (body.size > limits.max_bytes) body = await drawn(image, size, (longest /= 2));
  const smaller = name.replace(/(\.[^.]*)?$/, "-smaller.jpg");
  const before = `${(pixels / 1e6).toFixed(1)} megapixels and ${megabytes(file)}`;
  const after = `at most ${longest} pixels a side and ${megabytes(body)}`;
  const note = [`Made smaller in this browser, from ${before} to ${after}. `, download(body, smaller)];
  return { body, name: smaller, note };
}

async function drawn(image, [width, height], longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // JPEG has no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("This browser could not make the photo smaller."))), "image/jpeg", 0.92));
}

/** Folders can be dropped too, and say only so. */
const readable = (file) => file.slice(0, 1).arrayBuffer().then((start) => start.byteLength > 0, () => false);

function download(body, name) {
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(body), download: name, textContent: "Keep the smaller one" });
  return link;
}

const megabytes = (file) => `${(file.size / 1e6).toFixed(1)} MB`;
