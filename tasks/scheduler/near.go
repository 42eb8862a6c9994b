package scheduler

import (
	"slices"

	"gotong/tasks"
)

const (
	// lookAhead is among how many tasks that were not handed out yet a worker
	// gets one whose contents it has. None is passed over for longer than it
	// takes to hand out those.
	lookAhead = 64
	// nearMost bounds the contents that a worker is thought to have.
	nearMost = 1 << 12
)

// nextFor chooses a task for c that was never handed out, and takes it; false:
// there is none now. Where tasks have stored contents of their own it is the one
// of which the worker has the most bytes, else the first.
func (l *ledger) nextFor(c *claim) (index int, ok bool) {
	l.skipKnown()
	limit := min(l.looked, l.delivered+l.window)
	if l.gaveUp != "" || l.halted || l.next >= limit {
		return 0, false
	}
	if !l.job.Near {
		if !l.fits(l.next) {
			return 0, false
		}
		l.next++
		return l.next - 1, true
	}
	most := int64(-1)
	for i := l.next; i < min(limit, l.next+lookAhead); i++ {
		if l.knownAhead[i] || !l.fits(i) {
			continue
		}
		if has := c.nearBytes(l.partAhead(i)); has > most {
			index, most, ok = i, has, true
		}
	}
	if ok {
		l.knownAhead[index] = true
		l.skipKnown()
	}
	return index, ok
}

// partAhead returns what a task has of its own, for when it is handed out.
func (l *ledger) partAhead(index int) Part {
	part, ok := l.ahead[index]
	if !ok {
		part = l.job.Task(index)
		l.ahead[index] = part
	}
	return part
}

// partOf returns what a task has of its own that is handed out now.
func (l *ledger) partOf(index int) Part {
	part, ok := l.ahead[index]
	if !ok {
		return l.job.Task(index)
	}
	delete(l.ahead, index)
	return part
}

// nearBytes returns how many bytes of the stored contents of a task the worker is
// likely to have.
func (c *claim) nearBytes(p Part) (total int64) {
	made := slices.Contains(p.Near, c.candidate.Peer)
	for id, s := range p.Stored {
		if made || c.near[id] {
			total += s.Size
		}
	}
	return total
}

// keepsNear notes that the worker comes by the stored contents of a task.
func (c *claim) keepsNear(p Part) {
	for id := range p.Stored {
		if c.near == nil || len(c.near) >= nearMost {
			c.near = map[tasks.ContentID]bool{}
		}
		c.near[id] = true
	}
}
