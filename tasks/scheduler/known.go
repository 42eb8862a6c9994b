package scheduler

import "context"

// lookUp asks known for each task in turn, no further ahead than the window and
// the buffers reach, and settles those that need not run. Tasks are handed out
// once they were looked up.
func (l *ledger) lookUp(ctx context.Context, known func(spec [32]byte, index int) *Accepted) {
	for index := range l.job.Count {
		for !l.mayLookUp(index) {
			select {
			case <-ctx.Done():
				return
			case <-l.room:
			}
		}
		if ctx.Err() != nil {
			return
		}
		part := l.part(index)
		var a *Accepted
		if l.job.Check(part) == nil {
			a = known(l.job.Header.Spec(part).ID(), index)
		}
		l.lookedUp(index, a)
	}
}

// part returns what a task has of its own. Job.Task is called under the lock,
// so by one goroutine at a time.
func (l *ledger) part(index int) Part {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.job.Task(index)
}

func (l *ledger) mayLookUp(index int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.buffered >= l.bufferBytes && index != l.delivered
	return index < l.delivered+l.window && !full
}

// lookedUp takes in what is known of a task, nil for nothing.
func (l *ledger) lookedUp(index int, a *Accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looked = index + 1
	if a == nil {
		l.takeAllLeft()
		l.wakeStarved()
		if l.gaveUp != "" {
			l.signal() // it is lost
		}
		return
	}
	a.Task.Job, a.Task.Index, a.known = l.job.Job, index, true
	l.knownAhead[index] = true
	l.sum.Remembered++
	l.occupy(a, 1)
	l.settle(&entry{index: index}, a)
	l.noteUnchecked(a)
	if l.judge.caught[a.Peer] { // perhaps by a former driver, who did not come to run it again
		l.voidUnchecked(a.Peer)
		l.wakeAll()
	}
}

// skipKnown moves next over tasks that need not run, or were handed out.
func (l *ledger) skipKnown() {
	for l.knownAhead[l.next] {
		delete(l.knownAhead, l.next)
		l.next++
	}
}

// unseen returns how many tasks were never handed out and could be now.
func (l *ledger) unseen() int {
	if l.halted {
		return 0
	}
	return max(0, min(l.looked, l.delivered+l.window)-l.next-len(l.knownAhead))
}

// signalRoom lets lookUp go on.
func (l *ledger) signalRoom() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}
