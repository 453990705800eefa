// werift-rtp's SRTP behind two pipes: one JSON request, one JSON answer; packets are hexadecimal.
import {
  ProtectionProfileAeadAes128Gcm,
  ProtectionProfileAes128CmHmacSha1_80,
  RtpPacket,
  SrtcpSession,
  SrtpSession,
} from "werift-rtp";

const PROFILES = {
  AES_CM_128_HMAC_SHA1_80: ProtectionProfileAes128CmHmacSha1_80,
  AEAD_AES_128_GCM: ProtectionProfileAeadAes128Gcm,
};

function attempt(work, data) {
  try {
    return work(Buffer.from(data, "hex")).toString("hex");
  } catch (error) {
    return `error: ${error.message}`;
  }
}

function exchange({ suite, local, remote, rtp, rtcp, srtp, srtcp }) {
  const [mine, theirs] = [local, remote].map((key) => Buffer.from(key, "hex"));
  const keys = {
    localMasterKey: mine.subarray(0, 16),
    localMasterSalt: mine.subarray(16),
    remoteMasterKey: theirs.subarray(0, 16),
    remoteMasterSalt: theirs.subarray(16),
  };
  const sound = new SrtpSession({ keys, profile: PROFILES[suite] });
  const reports = new SrtcpSession({ keys, profile: PROFILES[suite] });
  const seal = (data) => {
    const packet = RtpPacket.deSerialize(data);
    return sound.encrypt(packet.payload, packet.header);
  };
  return {
    rtp: rtp.map((data) => attempt(seal, data)),
    rtcp: rtcp.map((data) => attempt((plain) => reports.encrypt(plain), data)),
    srtp: srtp.map((data) => attempt((sealed) => sound.decrypt(sealed), data)),
    srtcp: srtcp.map((data) => attempt((sealed) => reports.decrypt(sealed), data)),
  };
}

let text = "";
for await (const piece of process.stdin) text += piece;
process.stdout.write(JSON.stringify(exchange(JSON.parse(text))));
