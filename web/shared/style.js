// Style sheets of our own, through the host's helper: a pack puts nothing into the page's document itself.

/** Links a .css file into the page, by its path below web/; to be called once for each. */
export async function addStyles(name) {
  try {
    await window.comfyAPI.utils.addStylesheet(`../${name}`, import.meta.url);
  } catch (error) {
    console.warn(`Q-Sched: ${name} could not be loaded, the page looks plain.`, error);
  }
}
