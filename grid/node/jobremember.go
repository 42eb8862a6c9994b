package node

import (
	"slices"

	"gotong/grid"
	"gotong/tasks"
	"gotong/tasks/jobs"
	"gotong/tasks/scheduler"
	"gotong/tasks/taskrpc"
)

const (
	// lookUpsMost bounds the tasks of a job that is submitted whose results are
	// looked up, so that a large one is not held up. Where a peer of the owner
	// drives the job it looks up the others.
	lookUpsMost = 1 << 14
	// planRoom is left of a plan for what follows its remembered results.
	planRoom = 64 << 10
)

// know puts results that are remembered here into the plan, as many as there is
// room for. What a step takes of others is not known yet, so these are left to
// whoever drives the job.
func (s *submission) know() error {
	memory := s.peer.work.memory
	if memory == nil || s.plan.NoCache {
		return nil
	}
	draft, err := jobs.EncodeDraft(s.plan)
	if err != nil {
		return refuse("%v", err)
	}
	room := min(jobs.MaxKnownBytes, jobs.MaxPlanBytes-len(draft)) - planRoom
	var known []jobs.Known
	looked := 0
	for _, step := range s.plan.Steps {
		if step.Runtime == tasks.RuntimeNative {
			continue
		}
		specs, ok, err := step.Specs()
		if err != nil || !ok {
			continue // whoever drives the job says what is wrong
		}
		verify, err := tasks.ParseVerify(step.Verify)
		if err != nil {
			return err
		}
		lookUp := memory.Known(s.peer.remembers(verify))
		err = s.eachItem(step, func(i int, item *jobs.Item) (bool, error) {
			if looked++; looked > lookUpsMost || len(known) >= jobs.MaxRecordResults {
				return false, nil
			}
			spec, err := specs.Spec(i, item)
			if err != nil {
				return true, nil
			}
			a := lookUp(spec.ID(), i)
			if a == nil {
				return true, nil
			}
			size, err := jobs.KnownSize(a.Result)
			if err != nil || size > room {
				return err == nil, err
			}
			room -= size
			known = append(known, jobs.Known{Index: step.First + i, Result: a.Result, Checked: a.Checked})
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	s.plan.Known, err = jobs.Vouch(s.peer.node.Private(), s.plan.Job, known)
	return err
}

// eachItem calls f with every item of a step, nil for a step without a list,
// until it returns false.
func (s *submission) eachItem(step jobs.Step, f func(i int, item *jobs.Item) (bool, error)) error {
	if step.Items.Content.IsZero() {
		_, err := f(0, nil)
		return err
	}
	items, closer, err := step.Items.Open(s.have[step.Items.Content].path)
	if err != nil {
		return err
	}
	defer closer.Close()
	for i := range step.Items.Count {
		item, err := items.Item(i)
		if err != nil {
			return err
		}
		if more, err := f(i, &item); err != nil || !more {
			return err
		}
	}
	return nil
}

// rememberFetched remembers a result of a job that others drove, as far as it
// proves itself: the worker's signature holds, for this task of this job. It is worth
// as many sites as say the same, by what this peer knows of who they are.
func (p *Peer) rememberFetched(job tasks.JobID, spec tasks.Spec, res jobs.Result, result tasks.Result) {
	if p.work.memory == nil || res.Batch == nil || res.Remembered || spec.Native() || !seeded(res, spec) {
		return
	}
	a := &scheduler.Accepted{Result: result}
	sites := []string{}
	for _, vote := range append([]jobs.Result{res}, res.Votes...) {
		said, err := vote.Decode()
		site, member := p.siteOf(vote.Peer)
		if err != nil || len(sites) == tasks.MaxVotes || vote.Batch == nil || vote.Verify(job) != nil || vote.Index != res.Index || !member || slices.Contains(sites, site) || said.Digest() != result.Digest() {
			continue
		}
		sites = append(sites, site)
		a.Votes = append(a.Votes, scheduler.Vote{Peer: vote.Peer, Site: site, Result: said.Digest(), Engine: said.Engine})
	}
	verify := tasks.Verify{}
	if a.Checked = len(sites) > 1; a.Checked {
		verify = tasks.Verify{Mode: tasks.VerifyQuorum, Need: len(sites)}
	}
	of, id := p.remembers(verify), spec.ID()
	of.Engine = result.Engine
	if p.work.memory.Known(of)(id, 0) == nil { // nothing as good
		p.work.memory.Keep(of, id, a)
	}
}

// seeded reports whether the worker signed that it ran this.
func seeded(res jobs.Result, spec tasks.Spec) bool {
	_, seed, err := taskrpc.DecodeResult(res.Raw)
	return err == nil && seed == spec.Seed()
}

// siteOf returns the site of a member.
func (p *Peer) siteOf(id grid.PeerID) (string, bool) {
	for _, peer := range p.membership.Peers() {
		if peer.ID == id {
			return peer.Site(), true
		}
	}
	return "", false
}
