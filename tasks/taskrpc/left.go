package taskrpc

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// left is what a claim leaves behind whose caller fell silent: tasks that go on,
// and results that could not be reported. It goes to the next claim on the job.
// What nobody has asked for when Config.Grace is over ends. Its fields are guarded by Service.mu.
type left struct {
	job    Job
	header scheduler.Header
	tasks  map[int]*leftTask
	timer  *time.Timer
}

// leftTask is one task of left.
type leftTask struct {
	run     *run // nil: it has ended
	outcome outcome
	kept    bool // the runner keeps outputs until they are released
}

// sent are results that were reported a moment ago: who was told may be gone
// already. Short tasks are not worth it.
type sent []sentOutcome

type sentOutcome struct {
	outcome
	at time.Time
}

// since returns what was sent since a time.
func (s sent) since(t time.Time) (list []outcome) {
	for _, o := range s {
		if o.at.After(t) {
			list = append(list, o.outcome)
		}
	}
	return list
}

// add notes that outcomes are sent now, and forgets what is old or too much.
func (s sent) add(list []outcome, now time.Time) sent {
	for _, o := range list {
		if o.result.Elapsed >= sentLeast {
			s = append(s, sentOutcome{o, now})
		}
	}
	bytes := 0
	for i, o := range slices.Backward(s) {
		if bytes += len(o.raw); bytes > reportBytes || now.Sub(o.at) > sentFor {
			return slices.Delete(s, 0, i+1)
		}
	}
	return s
}

// outlives reports whether what c has goes on after it ended for a reason.
func (c *claim) outlives(why error) bool {
	for _, no := range []error{errClaimOver, tasks.ErrInvalid, tasks.ErrStopped} {
		if errors.Is(why, no) {
			return false
		}
	}
	return c.header.Outlive && c.service.cfg.Grace > 0 && c.service.closing == ""
}

// same reports whether a claim on job with header h is one for the same tasks as
// one on other: of the same owner's job, by somebody who knows its key too.
func same(job Job, h scheduler.Header, other Job, o scheduler.Header) bool {
	return job.Job == other.Job && job.Owner == other.Owner && h.Key == o.Key && h.Step == o.Step &&
		h.StoreOutputs == o.StoreOutputs && h.StoreStdout == o.StoreStdout && o.Outlive
}

// leave keeps what c has for the next caller.
func (s *Service) leave(c *claim) {
	l := &left{job: c.job, header: c.header, tasks: map[int]*leftTask{}}
	for index, r := range c.running {
		if len(l.tasks) < scheduler.MaxLeft {
			r.claim, r.left = nil, l
			l.tasks[index] = &leftTask{run: r}
		} else {
			r.abandon()
		}
	}
	for _, o := range append(c.reports, c.sent.since(time.Now().Add(-sentFor))...) {
		index := o.result.Task.Index
		if _, kept := c.held[index]; l.tasks[index] == nil && o.result.State.Final() && s.keeps(l, o) {
			l.tasks[index] = &leftTask{outcome: o, kept: kept}
			s.leftBytes += len(o.raw)
			delete(c.held, index)
		}
	}
	if c.left != nil { // what the caller before left
		for index, t := range c.left.tasks {
			if _, again := l.tasks[index]; !again && len(l.tasks) < scheduler.MaxLeft {
				delete(c.left.tasks, index)
				l.tasks[index] = t
				if t.run != nil {
					t.run.left = l
				}
			}
		}
	}
	c.running = nil
	if len(l.tasks) == 0 {
		return
	}
	if len(s.left) >= leftClaims {
		s.endLeft(s.left[0])
	}
	s.left = append(s.left, l)
	l.timer = time.AfterFunc(min(s.cfg.Grace, time.Until(l.job.Expires)), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endLeft(l)
	})
	s.logger.Info("caller fell silent; its tasks go on", "peer", c.job.Peer, "job", c.header.Job, "tasks", len(l.tasks))
}

// keeps reports whether there is room for a result in l.
func (s *Service) keeps(l *left, o outcome) bool {
	return len(l.tasks) < scheduler.MaxLeft && s.leftBytes+len(o.raw) <= leftBytes
}

// endLeft ends all tasks of l, which may be nil.
func (s *Service) endLeft(l *left) {
	if l == nil {
		return
	}
	for index := range l.tasks {
		s.dropLeft(l, index)
	}
	l.timer.Stop()
	s.unlist(l)
}

// unlist takes l from those that wait for a caller.
func (s *Service) unlist(l *left) {
	s.left = slices.DeleteFunc(s.left, func(o *left) bool { return o == l })
}

// dropLeft ends one task of l, if there is any.
func (s *Service) dropLeft(l *left, index int) {
	if l == nil || l.tasks[index] == nil {
		return
	}
	t := l.tasks[index]
	delete(l.tasks, index)
	s.leftBytes -= len(t.outcome.raw)
	if t.run != nil {
		t.run.abandon()
	}
	if t.kept {
		s.cfg.Runner.Release(t.outcome.result.Task)
	}
}

// endedLeft takes in what the runner says of a task that no caller has. That it is
// lost is kept too: the next caller is to count it.
func (s *Service) endedLeft(r *run, result tasks.Result, kept bool, err error) {
	l, index := r.left, r.order.Index
	t := l.tasks[index]
	t.run, t.kept, t.outcome.result = nil, kept, result
	if err == nil {
		t.outcome.spec = r.order.Spec
		t.outcome.raw, err = encodeResult(result, r.order.Spec.Seed())
	}
	size := len(t.outcome.raw)
	delete(l.tasks, index)
	tells := result.State.Final() || result.State == tasks.StateLost
	keeps := err == nil && tells && size <= tasks.MaxResultBytes && s.keeps(l, t.outcome)
	l.tasks[index] = t
	s.leftBytes += size
	if !keeps {
		s.dropLeft(l, index)
	}
}

// pickUp gives c what a former caller left of its tasks.
func (s *Service) pickUp(c *claim) {
	i := slices.IndexFunc(s.left, func(l *left) bool { return same(c.job, c.header, l.job, l.header) })
	if i >= 0 && c.header.Outlive {
		c.left = s.left[i]
		s.unlist(c.left)
	}
}

// takeLeft answers an order with the task that a former caller left, if it is the
// same.
func (c *claim) takeLeft(order scheduler.Order) bool {
	if c.left == nil || c.left.tasks[order.Index] == nil {
		return false
	}
	t := c.left.tasks[order.Index]
	spec := t.outcome.spec
	if t.run != nil {
		spec = t.run.order.Spec
	}
	if spec.ID() != order.Spec.ID() {
		c.service.dropLeft(c.left, order.Index)
		return false
	}
	delete(c.left.tasks, order.Index)
	if t.run != nil {
		t.run.left, t.run.claim = nil, c
		c.running[order.Index] = t.run
		return true
	}
	c.service.leftBytes -= len(t.outcome.raw)
	if t.kept {
		c.held[order.Index] = t.outcome.result
	}
	c.tell(t.outcome)
	return true
}

// leftOf returns how many tasks a claim would find, if it were granted now or once
// the caller who has them was found silent.
func (s *Service) leftOf(job Job, h scheduler.Header) (n int) {
	if !h.Outlive {
		return 0
	}
	for _, l := range s.left {
		if same(job, h, l.job, l.header) {
			n += len(l.tasks)
		}
	}
	for _, c := range s.claims {
		if same(job, h, c.job, c.header) {
			n += len(c.running) + len(c.reports)
		}
	}
	return n
}

// leftAt lists the tasks that c may pick up, those that have ended first.
func (s *Service) leftAt(c *claim) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.left == nil {
		return nil
	}
	list := make([]int, 0, len(c.left.tasks))
	for index := range c.left.tasks {
		list = append(list, index)
	}
	ended := func(index int) int {
		if c.left.tasks[index].run == nil {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(a, b int) int { return cmp.Or(cmp.Compare(ended(a), ended(b)), cmp.Compare(a, b)) })
	return list
}
