// The WebSocket of a session: moves of handles out, previews in. At most one
// move is under way; while it is, the newest replaces those that wait.

export class Live {
  #socket = null;
  #underWay = null;
  #waiting = null;
  #seq = 0;
  #units = null;
  #closed = false;
  #heard;

  /** `heard` has the functions preview, refused, changed, opened and lost. */
  constructor(session, heard) {
    this.session = session;
    this.#heard = heard;
    this.#open();
  }

  #open() {
    const address = `ws://${location.host}/api/v1/sessions/` +
      `${encodeURIComponent(this.session)}/live`;
    const socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => this.#heard.opened();
    socket.onmessage = ({data}) => this.#read(data);
    socket.onclose = () => {
      this.#underWay = this.#waiting = null;
      if (!this.#closed) this.#heard.lost();
    };
    this.#socket = socket;
  }

  /** Sends a wish, or keeps it until the last one is answered.
   * Returns its number. */
  move(wish) {
    const message = {type: 'move', seq: ++this.#seq, ...wish};
    if (this.#underWay !== null) this.#waiting = message;
    else this.#send(message);
    return message.seq;
  }

  /** What comes from now on belongs to no drag. */
  forget() {
    this.#waiting = null;
    this.ignoredTo = this.#seq;
  }

  close() {
    this.#closed = true;
    this.#socket.close();
  }

  #send(message) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#underWay = message.seq;
    this.#socket.send(JSON.stringify(message));
  }

  #read(data) {
    if (typeof data === 'string') {
      const message = JSON.parse(data);
      if (message.type === 'changed') {
        this.#heard.changed(message);
        return;
      }
      this.#answered(message.seq);
      if (message.seq > (this.ignoredTo ?? 0)) this.#heard.refused(message);
      return;
    }
    const length = new DataView(data).getUint32(0, true);
    const head = JSON.parse(
      new TextDecoder().decode(new Uint8Array(data, 4, length)));
    this.#answered(head.seq);
    if (head.seq <= (this.ignoredTo ?? 0)) return;
    // One buffer for all previews: a drag makes no garbage that lasts.
    const bytes = data.byteLength - 4 - length;
    if (this.#units?.byteLength !== bytes) {
      this.#units = new Uint16Array(bytes / 2);
    }
    new Uint8Array(this.#units.buffer).set(
      new Uint8Array(data, 4 + length, bytes));
    head.newest = head.seq === this.#seq;
    this.#heard.preview(
      head, {units: this.#units, gyPerUnit: head.gy_per_unit});
  }

  #answered() {
    this.#underWay = null;
    if (!this.#waiting) return;
    const next = this.#waiting;
    this.#waiting = null;
    this.#send(next);
  }
}
