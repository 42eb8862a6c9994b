package sandbox

import "time"

// Hold stops the child's processes where they are, until Resume. Time that
// passes meanwhile counts in no limit and in no outcome's Elapsed. It reports
// whether the processes were stopped; false on a system that cannot, and when
// the child has ended.
func (c *Child) Hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.reaped || c.cause != causeNone:
		return false
	case !c.held.IsZero():
		return true
	case !stopProcesses(c.cmd.Process):
		return false
	}
	c.held = time.Now()
	return true
}

// Resume lets the processes go on. Nothing happens when they are not held.
func (c *Child) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held.IsZero() {
		return
	}
	now := time.Now()
	if len(c.runs) > 0 {
		pause := now.Sub(later(c.held, c.headSince))
		c.headSince, c.headHeld = c.headSince.Add(pause), c.headHeld+pause
		c.armed = true
		c.timer.Reset(0) // checkTime knows when to look
	}
	c.held = time.Time{}
	if !c.reaped {
		continueProcesses(c.cmd.Process)
	}
}

// ran returns how long the first of runs has run; c.mu is held.
func (c *Child) ran(now time.Time) time.Duration {
	if !c.held.IsZero() {
		now = later(c.held, c.headSince)
	}
	return now.Sub(c.headSince)
}
