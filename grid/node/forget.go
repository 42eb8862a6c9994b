package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/seal"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// Forget takes snapshots out of the vault: those that are named, or those that
// no rule of a policy keeps.
func (p *Peer) Forget(ctx context.Context, r *controlv1.ForgetRequest) (*controlv1.ForgetResponse, error) {
	if len(r.Snapshots) > 0 {
		return p.forgetNamed(ctx, r)
	}
	policy, err := newPolicy(r.Keep, r.GroupBy)
	if err != nil {
		return nil, usage(err.Error(), "gotong forget --help")
	}
	if policy.Empty() {
		return nil, usage("forget what? name snapshots, or say what to keep", "gotong forget --help")
	}
	chosen, err := p.chosenSnapshots(ctx, r.Set, r.Tags)
	if err != nil {
		return nil, err
	}
	return p.forgetBy(ctx, chosen, policy, r.DryRun)
}

func (p *Peer) forgetNamed(ctx context.Context, r *controlv1.ForgetRequest) (*controlv1.ForgetResponse, error) {
	if !isNoPolicy(r.Keep) || r.Set != "" || len(r.Tags) > 0 {
		return nil, usage("either name snapshots or say what to keep", "gotong forget --help")
	}
	group := &controlv1.ForgetGroup{}
	var ids []vault.SnapshotID
	for _, text := range r.Snapshots {
		name, err := p.snapshotName(ctx, text)
		if err != nil {
			return nil, err
		}
		s, err := p.vault.Find(ctx, name)
		if err != nil {
			return nil, p.readFailure(text, err)
		}
		ids = append(ids, s.ID)
		group.Decisions = append(group.Decisions, &controlv1.ForgetDecision{Snapshot: snapshotMessage(s), Forget: true})
	}
	out := &controlv1.ForgetResponse{Groups: []*controlv1.ForgetGroup{group}, Forgotten: uint64(len(ids))}
	if r.DryRun {
		return out, nil
	}
	return out, p.forget(ctx, ids)
}

// forgetBy forgets what a policy does not keep.
func (p *Peer) forgetBy(ctx context.Context, chosen []vault.Snapshot, policy snapshot.Policy, dryRun bool) (*controlv1.ForgetResponse, error) {
	policy.Uncounted = func(s vault.Snapshot) string {
		if health, err := p.vault.Health(ctx, s.ID); err == nil && !health.Committed {
			return "partial: it does not stand for one that is whole"
		}
		return ""
	}
	out := &controlv1.ForgetResponse{}
	var ids []vault.SnapshotID
	for _, group := range snapshot.Keep(chosen, policy, time.Now()) {
		g := &controlv1.ForgetGroup{Name: validText(groupName(group))}
		for _, d := range group.Decisions {
			g.Decisions = append(g.Decisions, &controlv1.ForgetDecision{Snapshot: snapshotMessage(d.Snapshot), Forget: !d.Keep, Reasons: d.Reasons})
			if !d.Keep {
				ids = append(ids, d.Snapshot.ID)
			}
		}
		out.Groups = append(out.Groups, g)
	}
	out.Forgotten = uint64(len(ids))
	if dryRun {
		return out, nil
	}
	return out, p.forget(ctx, ids)
}

func groupName(g snapshot.Group) string {
	var parts []string
	for _, part := range []struct{ word, text string }{
		{"set ", g.Set}, {"", strings.Join(g.Paths, " ")}, {"host ", g.Host}, {"tags ", strings.Join(g.Tags, ",")},
	} {
		if part.text != "" {
			parts = append(parts, part.word+part.text)
		}
	}
	return strings.Join(parts, ", ")
}

func (p *Peer) forget(ctx context.Context, ids []vault.SnapshotID) error {
	if len(ids) == 0 {
		return nil
	}
	return p.expireFailure(p.vault.Forget(ctx, ids))
}

// expireFailure explains why nothing was forgotten or pruned.
func (p *Peer) expireFailure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vault.ErrMayNotDelete):
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "this device is write-only: it may not forget or prune",
			Meaning: "nothing was changed; so nobody who takes this machine over can delete backups either", Next: "gotong recover in a new home, without --write-only, takes the vault over; that device may"}
	case errors.Is(err, seal.ErrNoReadKey):
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: "without the read key nobody knows what the snapshots need",
			Meaning: "nothing was changed", Next: "the same command with --phrase-file FILE"}
	case errors.Is(err, vault.ErrBusy):
		return &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "another prune is running", Meaning: "it goes on", Next: "the same command later"}
	case errors.Is(err, vault.ErrUnreadable):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: err.Error(), Meaning: "nothing was deleted: what that snapshot needs is not known",
			Next: "gotong peers shows who is away; gotong check finds out more; gotong forget gives the snapshot up"}
	case errors.Is(err, vault.ErrNoSnapshot):
		return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: err.Error(), Meaning: "nothing was changed", Next: "gotong snapshots"}
	case errors.Is(err, vault.ErrNewerHead):
		return p.backupFailure(err)
	case disk.IsFull(err):
		return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the disk with " + p.home.dir + " is full",
			Meaning: "nothing that a snapshot needs was deleted", Next: "free some space, then the same command again"}
	}
	if f := p.noRoom(err); f != nil && f.Kind == controlv1.Kind_KIND_REFUSED {
		f.Meaning = "nothing was deleted: friends have to take the new state first"
		return f
	}
	err = p.explainTooFew(err)
	var few *Failure
	if errors.As(err, &few) && few.Kind == controlv1.Kind_KIND_TOO_FEW {
		few.Meaning, few.Next = "nothing was forgotten or deleted: that has to be written down with friends first", "gotong peers shows who is away; then the same command again"
	}
	return err
}

func isNoPolicy(k *controlv1.KeepPolicy) bool {
	policy, err := newPolicy(k, "")
	return err == nil && policy.Empty()
}

// newPolicy reads a policy. Snapshots of one set, or of the same paths, are
// judged together unless groupBy says otherwise.
func newPolicy(k *controlv1.KeepPolicy, groupBy string) (snapshot.Policy, error) {
	policy := snapshot.Policy{GroupBy: snapshot.DefaultGrouping}
	if k == nil {
		return policy, nil
	}
	for _, rule := range []struct {
		to   *int
		from int32
	}{
		{&policy.Last, k.Last}, {&policy.Hourly, k.Hourly}, {&policy.Daily, k.Daily},
		{&policy.Weekly, k.Weekly}, {&policy.Monthly, k.Monthly}, {&policy.Yearly, k.Yearly},
	} {
		if rule.from < snapshot.All {
			return policy, fmt.Errorf("cannot keep %d snapshots", rule.from)
		}
		*rule.to = int(rule.from)
	}
	for _, rule := range []struct {
		to   *snapshot.Period
		from string
	}{
		{&policy.Within, k.Within}, {&policy.WithinHourly, k.WithinHourly}, {&policy.WithinDaily, k.WithinDaily},
		{&policy.WithinWeekly, k.WithinWeekly}, {&policy.WithinMonthly, k.WithinMonthly}, {&policy.WithinYearly, k.WithinYearly},
	} {
		if rule.from == "" {
			continue
		}
		var err error
		if *rule.to, err = snapshot.ParsePeriod(rule.from); err != nil {
			return policy, err
		}
	}
	for _, list := range k.Tags {
		policy.Tags = append(policy.Tags, strings.Split(list, ","))
	}
	if groupBy == "" {
		return policy, nil
	}
	var err error
	policy.GroupBy, err = snapshot.ParseGrouping(groupBy)
	return policy, err
}

// policy returns the rules of a set.
func (k KeepConfig) policy() (snapshot.Policy, error) {
	return newPolicy(&controlv1.KeepPolicy{
		Last: int32(k.Last), Hourly: int32(k.Hourly), Daily: int32(k.Daily), Weekly: int32(k.Weekly), Monthly: int32(k.Monthly),
		Yearly: int32(k.Yearly), Within: k.Within, Tags: k.Tags,
	}, "")
}

// Prune gives back the space of what no snapshot needs.
func (p *Peer) Prune(ctx context.Context, maxWaste float64, dryRun bool, progress func(*controlv1.WorkProgress)) (*controlv1.PruneSummary, error) {
	if maxWaste < 0 || maxWaste > 1 {
		return nil, usage(fmt.Sprintf("a waste of %g is no share of the whole", maxWaste), "gotong prune --max-waste 5%")
	}
	began := time.Now()
	options := vault.PruneOptions{MaxWaste: maxWaste, DryRun: dryRun}
	if progress != nil {
		options.Progress = func(now vault.PruneProgress) {
			progress(&controlv1.WorkProgress{Doing: now.Step, Done: now.Done, Total: now.Total})
		}
	}
	r, err := p.vault.Prune(ctx, options)
	if err != nil {
		return nil, p.expireFailure(err)
	}
	return &controlv1.PruneSummary{
		Snapshots: r.Snapshots, Segments: r.Segments, Dropped: r.Dropped, Repacked: r.Repacked, Stored: r.Stored, Orphans: r.Orphans,
		Bytes: r.Bytes, WasteBytes: r.Waste, WasteLeftBytes: r.WasteLeft, FreedBytes: r.Freed, Waiting: uint64(r.Deletions.Held + r.Deletions.Sent),
		Seconds: time.Since(began).Seconds(), DryRun: dryRun, FloorSeconds: int64(p.cfg().Retention.Floor.Seconds()),
	}, nil
}
