// A microphone and a loudspeaker for LiveKit Agents, without a room: what is said is handed in, what is heard is counted.

import { stream, voice } from '@livekit/agents';
import { AudioFrame } from '@livekit/rtc-node';
import { RATE, saying } from '../caller.mjs';

export class Microphone extends voice.AudioInput {
  #channel = stream.createStreamChannel();

  constructor() {
    super();
    this.multiStream.addInputStream(this.#channel.stream());
  }

  async speak() {
    for (const piece of saying()) await this.#channel.write(new AudioFrame(piece, RATE, 1, piece.length));
  }

  async close() {
    await this.#channel.close();
    await super.close();
  }
}

// Plays in real time, so that what was heard of an answer is less than what came of it.
export class Loudspeaker extends voice.AudioOutput {
  soundMs = 0;
  #segmentMs = 0;
  #began = 0;
  #end = null;

  constructor() {
    super(RATE, undefined, { pause: false });
  }

  get isPlaying() {
    return this.#segmentMs > 0;
  }

  async captureFrame(frame) {
    await super.captureFrame(frame);
    if (!this.isPlaying) {
      this.#began = Date.now();
      this.onPlaybackStarted(this.#began);
    }
    const ms = (frame.samplesPerChannel / frame.sampleRate) * 1000;
    this.#segmentMs += ms;
    this.soundMs += ms;
  }

  flush() {
    super.flush();
    if (!this.isPlaying) return;
    this.#end = setTimeout(() => this.#finish(this.#segmentMs, false), this.#began + this.#segmentMs - Date.now());
  }

  clearBuffer() {
    if (this.isPlaying) this.#finish(Math.min(Date.now() - this.#began, this.#segmentMs), true);
  }

  #finish(playedMs, interrupted) {
    clearTimeout(this.#end);
    this.#segmentMs = 0;
    this.onPlaybackFinished({ playbackPosition: playedMs / 1000, interrupted });
  }
}
