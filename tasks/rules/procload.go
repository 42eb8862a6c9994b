package rules

// census is all processes at one moment, by number.
type census map[int]process

// descendants returns the processes below the given one, without itself.
func (c census) descendants(root int) map[int]bool {
	children := map[int][]int{}
	for pid, p := range c {
		children[p.parent] = append(children[p.parent], pid)
	}
	below := map[int]bool{}
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, pid := range children[next[0]] {
			if !below[pid] {
				below[pid] = true
				next = append(next, pid)
			}
		}
	}
	delete(below, root)
	return below
}

// othersUsed returns the ticks of CPU that others used between two looks:
// processes for which mine is false and that do not give way to all others.
// What a short-lived process used shows in the process that waited for it; what
// of that was seen while it lived is not counted again.
func othersUsed(before, after census, mine func(process) bool) uint64 {
	counts := func(p process) bool { return !p.polite() && !mine(p) }
	seen := map[int]uint64{} // by the parent: what its ended children had used
	for pid, old := range before {
		if now, lives := after[pid]; lives && now.started == old.started {
			continue
		}
		seen[old.parent] += old.used()
	}
	var sum uint64
	for pid, now := range after {
		if !counts(now) {
			continue
		}
		old, lived := before[pid]
		if !lived || old.started != now.started {
			sum += now.used() // it began between the looks
			continue
		}
		sum += less(now.own, old.own) + less(less(now.children, old.children), seen[pid])
	}
	return sum
}

// less is a − b, and 0 when b is more.
func less(a, b uint64) uint64 { return a - min(a, b) }
