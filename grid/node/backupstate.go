package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// How the newest snapshot of a set is, in BackupState.
const (
	stateNone      = "none"      // there is none
	stateDamaged   = "damaged"   // some of it is lost
	stateUnknown   = "unknown"   // nobody has looked since the index was made anew
	statePartial   = "partial"   // can be restored, but redundancy is not what the commit rule asks for
	stateCommitted = "committed" // that much is
	stateComplete  = "complete"  // all shards are stored
)

// backupStates says how the newest snapshot of each set is now, and the newest
// of those that belong to no configured set.
func (p *Peer) backupStates(ctx context.Context) ([]*controlv1.BackupState, error) {
	list, err := p.vault.Snapshots(ctx)
	if err != nil && !errors.Is(err, seal.ErrNoReadKey) {
		return nil, p.explainTooFew(err)
	}
	now := time.Now()
	var out []*controlv1.BackupState
	for _, set := range p.schedule.view(now) {
		state := &controlv1.BackupState{Set: set.name, State: stateNone, Schedule: set.schedule, Running: set.running, Failed: validText(set.failed),
			Untidy: validText(set.untidy)}
		if !set.next.IsZero() {
			state.NextUnix = set.next.Unix()
		}
		last := newest(list, func(s vault.Snapshot) bool { return s.Set == set.name })
		if err != nil { // without the read key only what was noted at the time is known
			last = set.noted()
		}
		if err := p.fillState(ctx, state, last, now); err != nil {
			return nil, err
		}
		out = append(out, state)
	}
	if err != nil {
		return p.addUnopened(ctx, out, now)
	}
	other := newest(list, func(s vault.Snapshot) bool { _, ok := p.cfg().Backup.Sets[s.Set]; return !ok })
	if other == nil {
		return out, nil
	}
	state := &controlv1.BackupState{Set: validText(strings.Join(other.Paths, " "))}
	if other.Set != "" {
		state.Set = other.Set
	}
	return append(out, state), p.fillState(ctx, state, other, now)
}

// addUnopened adds the newest snapshot of a device without the read key, which
// cannot tell what is in it, unless it is one that a set made.
func (p *Peer) addUnopened(ctx context.Context, states []*controlv1.BackupState, now time.Time) ([]*controlv1.BackupState, error) {
	id, created, err := p.vault.Newest(ctx)
	if err != nil {
		return nil, p.explainTooFew(err)
	}
	if id == (vault.SnapshotID{}) {
		return states, nil
	}
	for _, state := range states {
		if state.Snapshot == id.String() {
			return states, nil
		}
	}
	state := &controlv1.BackupState{Set: "this device"}
	return append(states, state), p.fillState(ctx, state, &vault.Snapshot{ID: id, Created: created}, now)
}

// noted returns what the schedule knows of the newest snapshot; nil for nothing.
func (v setView) noted() *vault.Snapshot {
	var id vault.SnapshotID
	digits, err := hex.DecodeString(v.snapshot)
	if err != nil || len(digits) != len(id) {
		return nil
	}
	copy(id[:], digits)
	return &vault.Snapshot{ID: id, Created: v.made, Set: v.name}
}

// newest returns the last of the snapshots that fit; nil when none does.
func newest(list []vault.Snapshot, fits func(vault.Snapshot) bool) *vault.Snapshot {
	for i := len(list) - 1; i >= 0; i-- {
		if fits(list[i]) {
			return &list[i]
		}
	}
	return nil
}

// fillState says how a snapshot is.
func (p *Peer) fillState(ctx context.Context, state *controlv1.BackupState, s *vault.Snapshot, now time.Time) error {
	if s == nil {
		return nil
	}
	health, err := p.vault.Health(ctx, s.ID)
	if errors.Is(err, vault.ErrNoSnapshot) { // forgotten meanwhile
		return nil
	}
	if err != nil {
		return p.explainTooFew(err)
	}
	state.Snapshot, state.LastUnix, state.Skipped = s.ID.String(), s.Created.Unix(), s.Skipped
	state.AgeSeconds = int64(max(now.Sub(s.Created), 0).Seconds())
	state.SurvivesSites = int32(health.SurvivesSites)
	switch {
	case health.Lost > 0:
		state.State, state.SurvivesSites = stateDamaged, -1
	case health.Unknown > 0:
		state.State = stateUnknown
	case health.Complete:
		state.State = stateComplete
	case health.Committed:
		state.State = stateCommitted
	default:
		state.State = statePartial
	}
	return nil
}

// backupProblems lists what of the own backups needs a look.
func backupProblems(states []*controlv1.BackupState) []*controlv1.Problem {
	var out []*controlv1.Problem
	for _, b := range states {
		again := "the same backup again"
		if b.Schedule != "" {
			again = "gotong backup --set " + b.Set
		}
		switch {
		case b.Failed != "" && b.LastUnix == 0:
			out = append(out, &controlv1.Problem{What: "set " + b.Set + " was not backed up yet", Why: b.Failed,
				Do: "the peer tries again by itself; to see all of it now: " + again})
		case b.Failed != "":
			out = append(out, &controlv1.Problem{What: fmt.Sprintf("set %s: the last run made no snapshot; the newest is of %s", b.Set, agoText(b)), Why: b.Failed,
				Do: "the peer tries again by itself; to see all of it now: " + again})
		}
		if b.Untidy != "" {
			out = append(out, &controlv1.Problem{What: "old snapshots of set " + b.Set + " are not forgotten", Why: b.Untidy,
				Do: "the peer tries again after the next backup; or take the rules under keep out of the configuration"})
		}
		if b.LastUnix == 0 {
			continue
		}
		if b.Skipped > 0 {
			out = append(out, &controlv1.Problem{What: fmt.Sprintf("the newest backup of %s lacks %s", b.Set, countOf(b.Skipped, "entry", "entries")),
				Why: "they could not be read", Do: again + " names them; make them readable, or exclude them"})
		}
		switch b.State {
		case stateDamaged:
			out = append(out, &controlv1.Problem{What: "a part of the newest backup of " + b.Set + " is lost",
				Why: "too many friends lost what they held of it; gotong check names the segments", Do: again + " stores anew what is still on this disk"})
		case statePartial:
			out = append(out, &controlv1.Problem{What: "the newest backup of " + b.Set + " is partial",
				Why: "too few friends were here to store it with full redundancy; it can be restored, but a friend or two more that are lost could end that",
				Do:  "nothing: the peer completes it when they are back; gotong peers shows who is away"})
		}
	}
	return out
}

func agoText(b *controlv1.BackupState) string {
	return ageText(time.Duration(b.AgeSeconds) * time.Second)
}

func countOf(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// backupSentence says in a few words how the own backups are.
func backupSentence(states []*controlv1.BackupState) string {
	var made, weak, lost, damaged, unknown, partial, failing, never []*controlv1.BackupState
	for _, b := range states {
		if b.LastUnix == 0 {
			if never = append(never, b); b.Failed != "" {
				failing = append(failing, b)
			}
			continue
		}
		made = append(made, b)
		switch {
		case b.State == stateDamaged:
			damaged = append(damaged, b)
		case b.SurvivesSites < 0:
			lost = append(lost, b)
		case b.State == stateUnknown:
			unknown = append(unknown, b)
		case b.State == statePartial:
			partial = append(partial, b)
		case b.SurvivesSites == 0:
			weak = append(weak, b)
		}
		if b.Failed != "" {
			failing = append(failing, b)
		}
	}
	if len(states) == 0 {
		return "No backup yet."
	}
	var parts []string
	bad := len(lost) + len(damaged) + len(unknown) + len(partial) + len(weak)
	switch {
	case len(made) == 0:
	case bad == 0 && len(made) == 1:
		parts = append(parts, fmt.Sprintf("The last backup is safe, %s (survives any %s lost).", agoText(made[0]), count(int(made[0].SurvivesSites), "site")))
	case bad == 0:
		parts = append(parts, fmt.Sprintf("All %d backups are safe (survive any %s lost).", len(made), count(leastSites(made), "site")))
	}
	for _, group := range []struct {
		sets      []*controlv1.BackupState
		one, many string
	}{
		{lost, "cannot be restored now: too few friends are here", "cannot be restored now: too few friends are here"},
		{damaged, "is damaged: a part of it is lost", "are damaged: parts of them are lost"},
		{unknown, "was not looked at since the index was made anew", "were not looked at since the index was made anew"},
		{partial, "is partial", "are partial"},
		{weak, "survives the loss of no site", "survive the loss of no site"},
		{failing, "could not be backed up lately", "could not be backed up lately"},
	} {
		if text := namesOf(group.sets, len(states)); len(group.sets) == 1 {
			parts = append(parts, fmt.Sprintf("%s %s.", text, group.one))
		} else if len(group.sets) > 1 {
			parts = append(parts, fmt.Sprintf("%s %s.", text, group.many))
		}
	}
	if waiting := len(never); waiting > 0 && len(failing) == 0 {
		parts = append(parts, namesOf(never, len(states))+" not backed up yet.")
	}
	return strings.Join(parts, " ")
}

// namesOf names backups at the beginning of a sentence.
func namesOf(sets []*controlv1.BackupState, all int) string {
	switch {
	case len(sets) == 0:
		return ""
	case len(sets) == 1 && all == 1 && sets[0].Schedule == "":
		return "The last backup, " + agoText(sets[0]) + ","
	case len(sets) > maxNamed:
		return fmt.Sprintf("%d backups", len(sets))
	}
	var names []string
	for _, b := range sets {
		names = append(names, b.Set)
	}
	return "Backup " + strings.Join(names, ", ")
}

func leastSites(states []*controlv1.BackupState) int {
	least := int(states[0].SurvivesSites)
	for _, b := range states {
		least = min(least, int(b.SurvivesSites))
	}
	return least
}
