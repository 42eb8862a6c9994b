package sandbox

import (
	"github.com/tetratelabs/wazero/experimental"

	"gotong/tasks"
)

// allocator gives guests their linear memory, one guest at a time, and refuses
// more than the limit. It keeps the address space between guests: mapping and
// unmapping costs more than a short task.
type allocator struct {
	limit  uint64
	denied bool // the guest asked for more than limit
	spare  *linear
}

// Allocate returns memory for one guest.
func (a *allocator) Allocate(_, _ uint64) experimental.LinearMemory {
	if l := a.spare; l != nil {
		a.spare = nil
		return l
	}
	region, err := newRegion(a.limit)
	if err != nil {
		stop(tasks.LimitMemory, "no address space for %d bytes of memory: %v", a.limit, err)
	}
	return &linear{allocator: a, region: region}
}

// linear is the memory of one guest. It never moves.
type linear struct {
	allocator *allocator
	region    region
	used      uint64
}

// Reallocate grows the memory. The guest sees a refusal at its limit as a failed
// memory.grow; when it asks for too much from the start it cannot run at all.
// When the machine has no more it is stopped: what it would do then is not what
// it does elsewhere.
func (l *linear) Reallocate(size uint64) []byte {
	if size > l.allocator.limit {
		l.allocator.denied = true
		if l.used == 0 {
			l.allocator.spare = l
			stop(tasks.LimitMemory, "needs %d bytes of memory, more than %d", size, l.allocator.limit)
		}
		return nil
	}
	buf, err := l.region.commit(size)
	if err != nil {
		stop(tasks.LimitMemory, "this machine has no %d bytes of memory for it: %v", size, err)
	}
	l.used = max(l.used, size)
	return buf
}

// Free makes the memory all zero and keeps it for the next guest.
func (l *linear) Free() {
	if err := l.region.reset(l.used); err != nil {
		l.region.release()
		return
	}
	l.used = 0
	if l.allocator.spare != nil {
		l.region.release()
		return
	}
	l.allocator.spare = l
}
