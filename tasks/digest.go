package tasks

import (
	"crypto/sha256"
	"encoding/binary"
)

// digestPrefix separates digests from other hashes.
const digestPrefix = "gotong result v1\x00"

// Digest is the hash by which results of one task are compared: state, limit,
// exit code, standard output and error, and the names, sizes and contents of
// the outputs and of a large standard output. Who ran it, how long, on what and the reason in words are not
// part of it. Results that depend on the machine (see Measured) are compared
// by state and limit alone.
func (r Result) Digest() [32]byte {
	buf := make([]byte, 0, len(digestPrefix)+len(r.Stdout)+len(r.Stderr)+128)
	buf = append(buf, digestPrefix...)
	buf = appendString(buf, string(r.State))
	buf = appendString(buf, string(r.Limit))
	if r.Measured() {
		return sha256.Sum256(buf)
	}
	buf = binary.AppendVarint(buf, int64(r.ExitCode))
	buf = binary.AppendUvarint(buf, uint64(r.StdoutSize()))
	if r.LargeStdout != nil {
		buf = append(buf, r.LargeStdout.Content[:]...)
	}
	buf = append(buf, r.Stdout...)
	buf = binary.AppendUvarint(buf, uint64(len(r.Stderr)))
	buf = append(buf, r.Stderr...)
	buf = binary.AppendUvarint(buf, uint64(len(r.Outputs)))
	for i := range r.Outputs {
		out := &r.Outputs[i]
		buf = appendString(buf, out.Name)
		buf = binary.AppendVarint(buf, out.Size)
		buf = append(buf, out.Content[:]...)
	}
	return sha256.Sum256(buf)
}

// Measured reports whether r may differ between honest machines: it was
// stopped at a limit of time, or of the memory of the process, which a slower
// machine or another processor meets earlier. Such a result is no evidence
// against its peer, nor against those who differ.
func (r Result) Measured() bool {
	switch r.Limit {
	case LimitWall, LimitMemory, LimitCompile:
		return r.State == StateLimit
	}
	return false
}
