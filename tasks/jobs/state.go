package jobs

import (
	"cmp"
	"slices"
	"time"

	"gotong/grid"
	"gotong/tasks"
)

// JobState says how far a job is. The list is closed.
type JobState string

// The states of a job.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Over reports whether nothing more is done for the job.
func (s JobState) Over() bool { return s == JobDone || s == JobFailed || s == JobCancelled }

// StepState says how far a step is. The list is closed.
type StepState string

// The states of a step.
const (
	StepWaiting StepState = "waiting" // for the steps that it needs
	StepReady   StepState = "ready"   // runs, or may
	StepDone    StepState = "done"
	StepFailed  StepState = "failed"
	StepSkipped StepState = "skipped" // a step that it needs failed
	// StepCancelled is what a cancelled job shows of a step that was not over;
	// StepStates does not return it.
	StepCancelled StepState = "cancelled"
)

// State is what follows from a plan and records of its job. Records may be
// applied in any order, and more than once: the same records give the same
// state. It is not safe for concurrent use.
//
// Of two results of one task the one of the higher generation stands, then the
// one of the higher revision, then of the lower epoch, then of the lower driver, then of the lower hash.
type State struct {
	plan  Plan
	tasks []entry
	steps []Counts

	drivers   []driver // that wrote a result; entry.driver is the place
	driverAt  map[driver]uint16
	peers     []grid.PeerID // entry.peer is the place + 1
	peerAt    map[grid.PeerID]uint16
	peerCount []Counts

	generation uint32
	epoch      uint64      // highest
	epochOf    grid.PeerID // the driver of that epoch; of several the lowest
	begun      bool
	cancelled  map[uint32]string // by generation
	ended      map[uint32]map[driver]endOf
	trust      map[grid.PeerID]trustOf
	evidence   map[uint64]struct{} // hashes of wrong results
	tried      map[int]triedOf     // runs that failed
	lost       map[int]triedOf     // runs that were lost
	first      time.Time           // of any record
	last       time.Time
}

// entry is what the state knows of a task, besides the result itself.
type entry struct {
	place      int64  // of the record in the journal
	hash       uint64 // of the result
	retried    uint32 // generation in which it was begun anew last; 0 never
	generation uint32 // of the result
	revision   uint32
	driver     uint16
	peer       uint16
	state      uint8 // 0: no result; else place in taskStates
	remembered bool  // nobody ran it for this job
}

var taskStates = []tasks.State{"", tasks.StateDone, tasks.StateFailed, tasks.StateLimit, tasks.StateCancelled, tasks.StateLost}

type driver struct {
	epoch uint64
	peer  grid.PeerID
}

func (d driver) compare(o driver) int {
	return cmp.Or(cmp.Compare(d.epoch, o.epoch), d.peer.Compare(o.peer))
}

type endOf struct {
	ended Ended
	at    time.Time
}

// compareEnds orders what one driver said of the end: the one that counts is the
// least.
func compareEnds(a, b endOf) int {
	switch {
	case a.ended.Done && !b.ended.Done:
		return -1
	case b.ended.Done && !a.ended.Done:
		return 1
	}
	return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.ended.Why, b.ended.Why))
}

// triedOf is how many runs of a task brought no result in a generation.
type triedOf struct {
	generation uint32
	runs       int
}

type trustOf struct {
	value int
	by    driver
	at    time.Time
}

// Counts counts tasks by how they ended.
type Counts struct {
	Tasks int // in all
	Done  int
	// Failed counts those that ended otherwise.
	Failed int
	// Remembered counts those that ended without a run.
	Remembered int
}

// Ended returns how many tasks have a result.
func (c Counts) Ended() int { return c.Done + c.Failed }

func (c *Counts) add(e entry, n int) {
	if e.remembered {
		c.Remembered += n
	}
	switch taskStates[e.state] {
	case "":
	case tasks.StateDone:
		c.Done += n
	default:
		c.Failed += n
	}
}

// NewState returns the state of a job of which nothing is recorded beyond its
// plan.
func NewState(p Plan) *State {
	s := &State{
		plan: p, tasks: make([]entry, p.Tasks()), driverAt: map[driver]uint16{}, peerAt: map[grid.PeerID]uint16{},
		cancelled: map[uint32]string{}, ended: map[uint32]map[driver]endOf{}, trust: map[grid.PeerID]trustOf{},
		evidence: map[uint64]struct{}{}, tried: map[int]triedOf{}, lost: map[int]triedOf{},
	}
	for _, step := range p.Steps {
		s.steps = append(s.steps, Counts{Tasks: step.Items.Count})
	}
	s.known()
	return s
}

// bounds of what a stranger's records may make the state remember.
const (
	maxDrivers     = 1 << 15
	maxStatePeers  = 1<<16 - 1
	maxGenerations = 1 << 10
)

// Apply takes a record in. place is where its journal has it; it is returned by
// Place for the results that stand. A record that no honest driver writes is
// refused, without a trace.
func (s *State) Apply(r *Record, place int64) error {
	if err := s.check(r); err != nil {
		return err
	}
	s.apply(r, place)
	return nil
}

// check refuses what goes beyond the plan, or beyond what any job needs.
func (s *State) check(r *Record) error {
	if r.Generation > maxGenerations {
		return invalid("generation %d", r.Generation)
	}
	for _, res := range r.Results {
		if res.Index < 0 || res.Index >= len(s.tasks) {
			return invalid("result of task %d of %d", res.Index, len(s.tasks))
		}
	}
	for _, list := range [][]Tried{r.Tried, r.Lost} {
		for _, t := range list {
			if t.Index < 0 || t.Index >= len(s.tasks) {
				return invalid("failure of task %d of %d", t.Index, len(s.tasks))
			}
		}
	}
	again := 0
	for _, g := range r.Retried {
		if again += g.Count; g.From < 0 || g.From+g.Count > len(s.tasks) || again > len(s.tasks) {
			return invalid("tasks %d to %d of %d are begun anew", g.From, g.From+g.Count-1, len(s.tasks))
		}
	}
	if _, known := s.driverAt[driver{r.Epoch, r.Driver}]; !known && len(s.drivers) >= maxDrivers {
		return invalid("more than %d drivers", maxDrivers)
	}
	return nil
}

func (s *State) apply(r *Record, place int64) {
	by := driver{r.Epoch, r.Driver}
	who := s.driverPlace(by)
	s.times(r.At)
	s.generation = max(s.generation, r.Generation)
	s.begin(r, by)
	for _, g := range r.Retried {
		for i := g.From; i < g.From+g.Count; i++ {
			s.retry(i, r.Generation)
		}
	}
	for _, res := range r.Results {
		s.result(res, r.Generation, who, place)
	}
	for _, res := range r.Evidence {
		if len(s.evidence) < maxStatePeers {
			s.evidence[res.hashOf()] = struct{}{}
		}
	}
	for _, t := range r.Trust {
		s.trusts(t, by, r.At)
	}
	takeTried(s.tried, r.Tried, r.Generation)
	takeTried(s.lost, r.Lost, r.Generation)
	s.ends(r, by)
}

// takeTried keeps the highest number of the highest generation.
func takeTried(of map[int]triedOf, list []Tried, generation uint32) {
	for _, t := range list {
		if old := of[t.Index]; generation > old.generation || generation == old.generation && t.Runs > old.runs {
			of[t.Index] = triedOf{generation, t.Runs}
		}
	}
}

func (s *State) times(at time.Time) {
	if s.first.IsZero() || at.Before(s.first) {
		s.first = at
	}
	if at.After(s.last) {
		s.last = at
	}
}

func (s *State) begin(r *Record, by driver) {
	if !r.Begun {
		return
	}
	s.begun = true
	if r.Epoch > s.epoch || r.Epoch == s.epoch && (s.epochOf.IsZero() || by.peer.Compare(s.epochOf) < 0) {
		s.epoch, s.epochOf = r.Epoch, by.peer
	}
}

func (s *State) ends(r *Record, by driver) {
	if r.Cancelled != nil {
		if why, ok := s.cancelled[r.Generation]; !ok || r.Cancelled.Why < why {
			s.cancelled[r.Generation] = r.Cancelled.Why
		}
	}
	if r.Ended != nil {
		of := s.ended[r.Generation]
		if of == nil {
			of = map[driver]endOf{}
			s.ended[r.Generation] = of
		}
		if old, ok := of[by]; !ok || compareEnds(endOf{*r.Ended, r.At}, old) < 0 {
			of[by] = endOf{*r.Ended, r.At}
		}
	}
}

// driverPlace returns the place of a driver in drivers.
func (s *State) driverPlace(by driver) uint16 {
	who, ok := s.driverAt[by]
	if !ok {
		who = uint16(len(s.drivers))
		s.drivers = append(s.drivers, by)
		s.driverAt[by] = who
	}
	return who
}

// retry notes that a task is to be run again.
func (s *State) retry(index int, generation uint32) {
	e := &s.tasks[index]
	if generation <= e.retried {
		return
	}
	s.count(index, -1)
	e.retried = generation
	s.count(index, 1)
}

// result takes one result in.
func (s *State) result(r Result, generation uint32, who uint16, place int64) {
	e := &s.tasks[r.Index]
	hash := r.hashOf()
	if e.state != 0 {
		newer := cmp.Or(
			-cmp.Compare(generation, e.generation),
			-cmp.Compare(r.Revision, e.revision),
			s.drivers[who].compare(s.drivers[e.driver]),
			cmp.Compare(hash, e.hash),
		)
		if newer > 0 || newer == 0 && place >= e.place {
			return
		}
	}
	s.count(r.Index, -1)
	e.place, e.hash, e.generation, e.revision, e.driver = place, hash, generation, r.Revision, who
	e.state, e.peer, e.remembered = uint8(slices.Index(taskStates, r.State)), 0, r.Remembered
	if !r.Remembered {
		e.peer = s.peerPlace(r.Peer)
	}
	s.count(r.Index, 1)
}

// peerPlace returns the place of a peer + 1. Peers beyond the bound are not
// told apart.
func (s *State) peerPlace(id grid.PeerID) uint16 {
	if id.IsZero() {
		return 0
	}
	n, ok := s.peerAt[id]
	if !ok {
		if len(s.peers) >= maxStatePeers {
			return 0
		}
		s.peers, s.peerCount = append(s.peers, id), append(s.peerCount, Counts{})
		n = uint16(len(s.peers))
		s.peerAt[id] = n
	}
	return n
}

// count adds a task to the sums, or takes it away.
func (s *State) count(index, n int) {
	e := s.tasks[index]
	if !e.stands() {
		return
	}
	s.steps[s.plan.StepOf(index)].add(e, n)
	if e.peer > 0 {
		s.peerCount[e.peer-1].add(e, n)
	}
}

// stands reports whether the task has a result that counts.
func (e entry) stands() bool { return e.state != 0 && e.generation >= e.retried }

func (s *State) trusts(t Trust, by driver, at time.Time) {
	old, ok := s.trust[t.Peer]
	if !ok && len(s.trust) >= maxStatePeers {
		return
	}
	// The latest driver's latest word counts; of equal ones the lower trust.
	newer := cmp.Or(cmp.Compare(by.epoch, old.by.epoch), at.Compare(old.at), cmp.Compare(old.value, t.Value), by.peer.Compare(old.by.peer))
	if !ok || newer > 0 {
		s.trust[t.Peer] = trustOf{t.Value, by, at}
	}
}

// Plan returns the plan.
func (s *State) Plan() Plan { return s.plan }

// Accepted reports whether a task has a result that counts, and in which state.
func (s *State) Accepted(index int) (tasks.State, bool) {
	e := s.tasks[index]
	if !e.stands() {
		return "", false
	}
	return taskStates[e.state], true
}

// Place returns where the journal has the result that counts.
func (s *State) Place(index int) (int64, bool) {
	e := s.tasks[index]
	return e.place, e.stands()
}

// Counts returns the sums over all steps.
func (s *State) Counts() Counts {
	var sum Counts
	for _, c := range s.steps {
		sum.Tasks, sum.Done, sum.Failed = sum.Tasks+c.Tasks, sum.Done+c.Done, sum.Failed+c.Failed
		sum.Remembered += c.Remembered
	}
	return sum
}

// Step returns the counts of one step.
func (s *State) Step(i int) Counts { return s.steps[i] }

// StepStates returns how far each step is.
func (s *State) StepStates() []StepState {
	out := make([]StepState, len(s.steps))
	for i, step := range s.plan.Steps {
		out[i] = s.ownState(i)
		for _, n := range step.Needs { // they stand before it
			switch out[n.Step] {
			case StepDone:
				continue
			case StepFailed, StepSkipped:
				out[i] = StepSkipped
			default:
				if out[i] != StepSkipped {
					out[i] = StepWaiting
				}
			}
		}
	}
	return out
}

// ownState is how far a step is whose needs are met.
func (s *State) ownState(i int) StepState {
	step, c := s.plan.Steps[i], s.steps[i]
	switch {
	case c.Failed > 0 && step.OnFailure == FailureStop:
		return StepFailed
	case c.Ended() < c.Tasks:
		return StepReady
	case c.Failed > 0 && step.OnFailure != FailureIgnore:
		return StepFailed
	}
	return StepDone
}

// State returns how far the job is. A job whose work was done before it was
// cancelled is done.
func (s *State) State() JobState {
	end, ended := s.end()
	_, cancelled := s.cancelled[s.generation]
	switch {
	case ended && end.ended.Done:
		return JobDone
	case cancelled:
		return JobCancelled
	case ended:
		return JobFailed
	case s.begun:
		return JobRunning
	}
	return JobQueued
}

// end returns the end of this generation that counts: one that is done, then of
// the lowest driver.
func (s *State) end() (endOf, bool) {
	var best endOf
	var by driver
	found := false
	for who, e := range s.ended[s.generation] {
		better := !found || e.ended.Done && !best.ended.Done ||
			e.ended.Done == best.ended.Done && who.compare(by) < 0
		if better {
			best, by, found = e, who, true
		}
	}
	return best, found
}

// Why says why the job failed or was cancelled, in words.
func (s *State) Why() string {
	switch s.State() {
	case JobCancelled:
		return s.cancelled[s.generation]
	case JobFailed, JobDone:
		end, _ := s.end()
		return end.ended.Why
	}
	return ""
}

// EndedAt returns when the job ended; zero when it did not.
func (s *State) EndedAt() time.Time {
	if e, ok := s.end(); ok {
		return e.at
	}
	if s.State().Over() {
		return s.last
	}
	return time.Time{}
}

// Last returns the time of the latest record; zero when there is none.
func (s *State) Last() time.Time { return s.last }

// Epoch returns the highest epoch in which a driver began, and the driver.
func (s *State) Epoch() (uint64, grid.PeerID) { return s.epoch, s.epochOf }

// Generation returns how often ended tasks were begun anew.
func (s *State) Generation() uint32 { return s.generation }

// Evidence returns how many wrong results were found.
func (s *State) Evidence() int { return len(s.evidence) }

// Trust returns what drivers think of workers.
func (s *State) Trust() map[grid.PeerID]int {
	out := make(map[grid.PeerID]int, len(s.trust))
	for id, t := range s.trust {
		out[id] = t.value
	}
	return out
}

// Tries says how many runs of the tasks of a step failed, by their place in it,
// since they were begun anew last; drivers that did not know of each other are not
// added up.
func (s *State) Tries(step int) map[int]int { return s.triedIn(step, s.tried) }

// Lost says how many runs were lost with their workers and begun again, as Tries
// does of those that failed.
func (s *State) Lost(step int) map[int]int { return s.triedIn(step, s.lost) }

func (s *State) triedIn(step int, of map[int]triedOf) map[int]int {
	out := map[int]int{}
	p := s.plan.Steps[step]
	for index, t := range of {
		if place := index - p.First; place >= 0 && place < p.Items.Count && t.generation >= s.tasks[index].retried {
			out[place] = t.runs
		}
	}
	return out
}

// PeerCounts says how many tasks each peer ended, of those that count.
func (s *State) PeerCounts() map[grid.PeerID]Counts {
	out := map[grid.PeerID]Counts{}
	for i, id := range s.peers {
		if c := s.peerCount[i]; c.Ended() > 0 {
			c.Tasks = c.Ended()
			out[id] = c
		}
	}
	return out
}

// Failures lists the tasks that ended otherwise than done, as ranges.
func (s *State) Failures() []Range {
	var out []Range
	for i, e := range s.tasks {
		if !e.stands() || taskStates[e.state] == tasks.StateDone {
			continue
		}
		if n := len(out); n > 0 && out[n-1].From+out[n-1].Count == i {
			out[n-1].Count++
		} else {
			out = append(out, Range{i, 1})
		}
	}
	return out
}
