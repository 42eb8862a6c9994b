//go:build !linux

package sandbox

// region is memory from the Go heap. It moves when it outgrows its capacity,
// which the engine allows for memory that is not shared.
type region struct {
	limit uint64
	buf   []byte
}

func newRegion(size uint64) (region, error) { return region{limit: size}, nil }

// commit makes the first size bytes usable and returns them.
func (r *region) commit(size uint64) ([]byte, error) {
	if size > uint64(cap(r.buf)) {
		grown := make([]byte, size, min(r.limit, max(size, 2*uint64(cap(r.buf)))))
		copy(grown, r.buf)
		r.buf = grown
	}
	r.buf = r.buf[:size]
	return r.buf, nil
}

// reset makes the first used bytes zero.
func (r *region) reset(used uint64) error {
	clear(r.buf[:used])
	return nil
}

func (r *region) release() { r.buf = nil }
