package sandbox

import (
	"golang.org/x/sys/unix"
)

// region is reserved address space; its beginning is usable memory. Pages that
// were usable stay so, for the next guest mostly wants as many.
type region struct {
	space     []byte
	committed uint64
}

// clearBytes is up to where clearing memory is cheaper than giving the pages
// back and faulting them in again.
const clearBytes = 256 << 10

func newRegion(size uint64) (region, error) {
	space, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	return region{space: space}, err
}

// commit makes the first size bytes usable and returns them.
func (r *region) commit(size uint64) ([]byte, error) {
	if size > r.committed {
		if err := unix.Mprotect(r.space[:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil, err
		}
		r.committed = size
	}
	return r.space[:size:size], nil
}

// reset makes the first used bytes zero.
func (r *region) reset(used uint64) error {
	cleared := min(used, clearBytes)
	clear(r.space[:cleared])
	if used == cleared {
		return nil
	}
	return unix.Madvise(r.space[cleared:used], unix.MADV_DONTNEED)
}

func (r *region) release() { unix.Munmap(r.space) }
