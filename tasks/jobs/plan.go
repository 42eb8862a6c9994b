package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
)

// DomainPlan is the signing domain of plans.
const DomainPlan identity.Domain = "gotong plan v1"

// Bounds of a plan.
const (
	MaxPlanBytes     = 2 << 20  // encoded and signed
	MaxSteps         = 64       // steps
	MaxNameBytes     = 128      // name of a job or a step
	MaxWhereBytes    = 4 << 10  // Step.Where
	InlineItemsBytes = 64 << 10 // Items.Data
	MaxItemsBytes    = 8 << 30  // Items.Size
	MaxRetries       = 100      // Step.Retries
	MaxPriority      = 1000     // and the negative of it
	MaxGrantBytes    = 4 << 10  // Plan.Grant
	MaxKnownBytes    = 1 << 20  // Plan.Known, encoded
	MaxRetention     = 10 * 365 * 24 * time.Hour
)

// Keepers says on whose peers a job is kept. The list is closed.
type Keepers string

// Who may keep a job.
const (
	KeepersAny     Keepers = "any"     // any member
	KeepersFriends Keepers = "friends" // members of other owners first
	KeepersMine    Keepers = "mine"    // peers of the job's owner only
)

// Valid reports whether k is in the list.
func (k Keepers) Valid() bool { return k == KeepersAny || k == KeepersFriends || k == KeepersMine }

// OnFailure says what a failed task means for its step. The list is closed.
type OnFailure string

// What a failed task means.
const (
	FailureFinish OnFailure = "finish" // the other tasks are run, then the step has failed
	FailureStop   OnFailure = "stop"   // the step has failed at once
	FailureIgnore OnFailure = "ignore" // the step is done nevertheless; what needs the task goes without it
)

// Valid reports whether f is in the list.
func (f OnFailure) Valid() bool {
	return f == FailureFinish || f == FailureStop || f == FailureIgnore
}

// Plan says what a job is. It never changes.
type Plan struct {
	Job       tasks.JobID
	Name      string // for people
	Owner     grid.OwnerID
	Submitter grid.PeerID // who signed it
	Created   time.Time   // in whole seconds
	Expires   time.Time   // when stored contents may go, at the latest
	Retention time.Duration
	Keepers   Keepers
	Priority  int // tasks of higher ones begin first, among the jobs of the owner
	Key       tasks.Key
	Grant     []byte // storage job grant; nil when nothing of it is stored
	Steps     []Step
	// Known are results that the submitter remembers of former jobs and vouches
	// for, see Vouch. They stand from the beginning.
	Known   []Result
	NoCache bool // whoever drives the job takes no remembered results
}

// Step is an array of tasks.
type Step struct {
	Name      string
	Needs     []Need
	Runtime   tasks.Runtime
	Module    tasks.ContentID
	Args      []string // templates, see tasks/batch
	Common    []tasks.Input
	Items     Items
	Limits    tasks.Limits // complete
	Verify    string       // a verification policy; empty: none
	Where     string       // which peers may run it; empty: any
	Outputs   bool         // keep the files below /out
	Retries   int          // how often a task that failed is run again
	MaxPeers  int          // at once; 0: any number
	OnFailure OnFailure
	Stored    map[tasks.ContentID]tasks.Stored

	// First is the index in the job of the step's first task. It follows from
	// the steps before.
	First int
}

// Command returns the native command that all tasks of the step run; empty when
// there is none, or their items name it.
func (s Step) Command() string {
	if s.Runtime != tasks.RuntimeNative || len(s.Args) == 0 {
		return ""
	}
	text, _ := batch.Fixed(s.Args[0])
	return text
}

// Need is a step whose results another takes in.
type Need struct {
	Step   int  // place in the plan; before the step that needs it
	Gather bool // the results of all of its tasks; else that of the same place
	Stdin  bool // their standard output, joined in order, is the standard input
	Files  bool // what they left below /out appears below /in/NAME, or /in/NAME/PLACE when gathered
}

// Items is a list of items. Count 1 without Content is a step that runs once,
// without an item.
type Items struct {
	Count   int
	Content tasks.ContentID // of the list as ItemsWriter wrote it; zero: no list
	Size    int64           // bytes of the list
	Data    []byte          // the list when it is small, else nil
}

// Tasks returns the number of tasks of all steps.
func (p Plan) Tasks() int {
	if len(p.Steps) == 0 {
		return 0
	}
	last := p.Steps[len(p.Steps)-1]
	return last.First + last.Items.Count
}

// StepOf returns the step to which a task belongs, by its index in the job.
func (p Plan) StepOf(index int) int {
	for i := len(p.Steps) - 1; i > 0; i-- {
		if index >= p.Steps[i].First {
			return i
		}
	}
	return 0
}

// number sets First of every step.
func (p *Plan) number() {
	first := 0
	for i := range p.Steps {
		p.Steps[i].First = first
		first += p.Steps[i].Items.Count
	}
}

// Validate reports every fault of the plan, joined, wrapping tasks.ErrInvalid.
func (p Plan) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(!p.Job.IsZero(), "no job id")
	check(validName(p.Name) || p.Name == "", "bad name %q", p.Name)
	check(p.Owner != grid.OwnerID{}, "no owner")
	check(p.Created.Unix() > 0 && p.Expires.After(p.Created), "expires %s, created %s", p.Expires, p.Created)
	check(p.Retention >= 0 && p.Retention <= MaxRetention, "retention of %s", p.Retention)
	check(p.Keepers.Valid(), "unknown keepers %q", p.Keepers)
	check(p.Priority >= -MaxPriority && p.Priority <= MaxPriority, "priority %d is not between -%d and %d", p.Priority, MaxPriority, MaxPriority)
	check(len(p.Grant) <= MaxGrantBytes, "grant of %d bytes", len(p.Grant))
	check(len(p.Steps) > 0 && len(p.Steps) <= MaxSteps, "%d steps, want 1 to %d", len(p.Steps), MaxSteps)
	names, total := map[string]bool{}, 0
	for i, s := range p.Steps {
		check(validName(s.Name), "step %d: bad name %q", i+1, s.Name)
		check(!names[s.Name], "two steps named %q", s.Name)
		names[s.Name] = true
		if err := s.validate(p, i); err != nil {
			faults = append(faults, fmt.Errorf("step %q: %w", s.Name, err))
		}
		total += max(0, min(s.Items.Count, scheduler.MaxTasks))
	}
	check(total <= scheduler.MaxTasks, "%d tasks, at most %d", total, scheduler.MaxTasks)
	check(p.knownValid(), "bad remembered results")
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w: %w", tasks.ErrInvalid, err)
	}
	return nil
}

func (s Step) validate(p Plan, place int) error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(s.OnFailure.Valid(), "unknown on_failure %q", s.OnFailure)
	check(len(s.Where) <= MaxWhereBytes, "condition of %d bytes", len(s.Where))
	check(s.Retries >= 0 && s.Retries <= MaxRetries, "%d retries, at most %d", s.Retries, MaxRetries)
	check(s.MaxPeers >= 0 && s.MaxPeers <= scheduler.MaxPeers, "%d peers, at most %d", s.MaxPeers, scheduler.MaxPeers)
	check(s.Items.valid(), "bad list of items")
	stdin := 0
	for _, n := range s.Needs {
		if n.Step < 0 || n.Step >= place {
			faults = append(faults, fmt.Errorf("needs step %d", n.Step+1))
			continue
		}
		check(n.Gather || p.Steps[n.Step].Items.Count == s.Items.Count, "needs %q task by task, which has another number of items", p.Steps[n.Step].Name)
		check(!n.Files || p.Steps[n.Step].Outputs, "needs the outputs of %q, which keeps none", p.Steps[n.Step].Name)
		if n.Stdin {
			stdin++
		}
	}
	check(stdin <= 1, "standard input from %d steps", stdin)
	for id, stored := range s.Stored {
		check(!id.IsZero() && stored.Validate() == nil, "bad place of content %s", id.Short())
	}
	faults = append(faults, s.spec().Validate())
	return errors.Join(faults...)
}

// Contents returns the module, the inputs that all tasks have, and the list of
// items when it does not ride in the plan; each once.
func (s Step) Contents() []tasks.ContentID {
	ids := tasks.Spec{Module: s.Module, Inputs: s.Common}.Contents()
	if id := s.Items.Content; !id.IsZero() && len(s.Items.Data) == 0 && !slices.Contains(ids, id) {
		ids = append(ids, id)
	}
	return ids
}

// spec is what the tasks of s have in common.
func (s Step) spec() tasks.Spec {
	return tasks.Spec{Runtime: s.Runtime, Module: s.Module, Args: s.Args, Inputs: s.Common, Limits: s.Limits}
}

func (i Items) valid() bool {
	if i.Content.IsZero() {
		return i.Count == 1 && i.Size == 0 && len(i.Data) == 0
	}
	return i.Count >= 0 && i.Count <= scheduler.MaxTasks && i.Size > 0 && i.Size <= MaxItemsBytes &&
		len(i.Data) <= InlineItemsBytes && (len(i.Data) == 0 || int64(len(i.Data)) == i.Size)
}

// validName reports whether a job or step may have this name: it is also the
// name of a directory.
func validName(name string) bool {
	return name != "" && len(name) <= MaxNameBytes && utf8.ValidString(name) &&
		tasks.ValidName(name) && !strings.Contains(name, "/")
}
