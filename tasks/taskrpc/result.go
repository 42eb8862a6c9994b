package taskrpc

import "gotong/tasks"

// EncodeResult returns a result as workers sign it and journals keep it. Peer
// is not part of it; seed is that of the task's Spec, zero when it never ran.
func EncodeResult(r tasks.Result, seed [32]byte) ([]byte, error) { return encodeResult(r, seed) }

// DecodeResult parses and validates what EncodeResult, or a worker, wrote.
func DecodeResult(raw []byte) (r tasks.Result, seed [32]byte, err error) { return decodeResult(raw) }
