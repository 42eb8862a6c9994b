package jobs

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/batch"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

// knownPlace is State.Place of the results that came with the plan. Journals
// have their first record later.
const knownPlace = 1

// Known is the result of a task that need not run: it is remembered.
type Known struct {
	Index  int // of the task in the job
	Result tasks.Result
	// Checked: enough sites agreed on it for this job's verification.
	Checked bool
}

// Vouch makes remembered results those of a job. The worker signed them for
// another one, so a peer of the owner that remembers them signs them anew: it is
// to be trusted by nobody but its owner, who alone has use of them.
func Vouch(node ed25519.PrivateKey, job tasks.JobID, known []Known) ([]Result, error) {
	peer := grid.PeerIDOf(node.Public().(ed25519.PublicKey))
	out := make([]Result, 0, len(known))
	for len(known) > 0 {
		some := known[:min(len(known), scheduler.MaxSignedResults)]
		known = known[len(some):]
		raws := make([][]byte, len(some))
		for i, k := range some {
			k.Result.Task = tasks.TaskID{Job: job, Index: k.Index}
			raw, err := taskrpc.EncodeResult(k.Result, [32]byte{})
			if err != nil {
				return nil, err
			}
			raws[i] = raw
		}
		signed := scheduler.SignResults(node, raws)
		batch := &Batch{signed.Key, signed.Signature, signed.Body}
		for i, k := range some {
			out = append(out, Result{
				Index: k.Index, State: k.Result.State, Peer: peer, Raw: raws[i], Batch: batch, Position: i,
				Checked: k.Checked, Remembered: true,
			})
		}
	}
	return out, nil
}

// KnownSize estimates the bytes that a remembered result takes in a plan, from
// above.
func KnownSize(r tasks.Result) (int, error) {
	raw, err := taskrpc.EncodeResult(r, [32]byte{})
	return Result{Raw: raw}.size() + hashBytes, err
}

// encodeKnown returns Known as parseKnown reads it.
func (p Plan) encodeKnown() ([]byte, error) {
	if len(p.Known) == 0 {
		return nil, nil
	}
	raw, err := Record{Driver: p.Submitter, At: p.Created, Results: p.Known}.Encode()
	if err == nil && len(raw) > MaxKnownBytes {
		err = invalid("remembered results of %d bytes, at most %d", len(raw), MaxKnownBytes)
	}
	return raw, err
}

func parseKnown(raw []byte) ([]Result, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if len(raw) > MaxKnownBytes {
		return nil, invalid("remembered results of %d bytes", len(raw))
	}
	r, err := ParseRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("remembered results: %w", err)
	}
	if len(r.Evidence) > 0 {
		return nil, invalid("evidence among remembered results")
	}
	return r.Results, nil
}

// knownValid reports whether Known has results of the plan's tasks, by their
// index, for which the submitter vouches.
func (p Plan) knownValid() bool {
	last, most := -1, p.Tasks()
	for _, r := range p.Known {
		if r.Index <= last || r.Index >= most || !r.Remembered || r.Peer != p.Submitter || r.Revision != 0 || len(r.Votes) > 0 {
			return false
		}
		last = r.Index
	}
	return true
}

// known takes in the results that came with the plan: those of a driver before
// the first epoch.
func (s *State) known() {
	if len(s.plan.Known) == 0 {
		return
	}
	who := s.driverPlace(driver{peer: s.plan.Submitter})
	for _, r := range s.plan.Known {
		s.result(r, 0, who, knownPlace)
	}
}

// knownResult returns the result of a task that came with the plan.
func (p Plan) knownResult(index int) (Result, bool) {
	i, ok := slices.BinarySearchFunc(p.Known, index, func(r Result, index int) int { return r.Index - index })
	if !ok {
		return Result{}, false
	}
	return p.Known[i], true
}

// Specs tells what the tasks of a step run that takes nothing of other steps. It
// is safe for concurrent use.
type Specs struct {
	step     Step
	header   scheduler.Header
	template *batch.Template
}

// Specs returns the specs of the tasks of s. False: they follow from results of
// other steps.
func (s Step) Specs() (*Specs, bool, error) {
	if len(s.Needs) > 0 {
		return nil, false, nil
	}
	t, err := batch.ParseTemplate(s.Args, false)
	if err != nil {
		return nil, false, err
	}
	return &Specs{s, scheduler.Header{Runtime: s.Runtime, Module: s.Module, Limits: s.Limits, Inputs: s.Common}, t}, true, nil
}

// Spec returns what the task at a place of the step runs; item is its item, nil
// when the step has no list.
func (x *Specs) Spec(place int, item *Item) (tasks.Spec, error) {
	part, err := ownPart(x.template, place, item)
	return x.header.Spec(part), err
}

// ownPart returns what a task has of its own, beside what it takes of the steps
// before.
func ownPart(t *batch.Template, place int, item *Item) (part scheduler.Part, err error) {
	part.Stored = map[tasks.ContentID]tasks.Stored{}
	if item == nil {
		part.Args, err = t.Expand(place+1, nil)
		return part, err
	}
	part.Args, err = t.Expand(place+1, item.Words)
	part.Inputs, part.Stdin, part.StdinSize = item.Inputs, item.Stdin, item.StdinSize
	for id, stored := range item.Stored {
		part.Stored[id] = stored
	}
	return part, err
}
