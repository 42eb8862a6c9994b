package node

import (
	"context"
	"errors"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// explain turns an error of a lower layer into what it means for the user.
func explain(err error) *Failure {
	for _, rule := range []struct {
		is            error
		kind          controlv1.Kind
		meaning, next string
	}{
		{storage.ErrTooFewShards, controlv1.Kind_KIND_TOO_FEW, "nothing is lost: the data is back when enough of these friends are", "gotong peers; then the same command again"},
		{storage.ErrTooFewPeers, controlv1.Kind_KIND_TOO_FEW, "nothing new is backed up yet; what was before is untouched", "gotong invite, or wait for friends: gotong peers"},
		{storage.ErrQuota, controlv1.Kind_KIND_REFUSED, "nothing new is backed up yet; what was before is untouched", "give more, or ask friends to: gotong peers"},
		{storage.ErrFull, controlv1.Kind_KIND_REFUSED, "what was stored before is untouched", "free some disk"},
		{storage.ErrDenied, controlv1.Kind_KIND_REFUSED, "", "gotong status"},
		{storage.ErrStaleEpoch, controlv1.Kind_KIND_REFUSED, "another machine took this vault over", ""},
		{seal.ErrNoReadKey, controlv1.Kind_KIND_WRONG_PHRASE, "this device is write-only: it cannot open snapshots without the recovery phrase", "the same command with --phrase-file FILE"},
		{seal.ErrWrongReadKey, controlv1.Kind_KIND_WRONG_PHRASE, "nothing was read", "compare the words with the paper"},
		{storage.ErrCorrupt, controlv1.Kind_KIND_CORRUPT, "", "gotong status"},
		{tasks.ErrInvalid, controlv1.Kind_KIND_USAGE, "no task was run", "gotong run --help"},
		{scheduler.ErrTooFewSites, controlv1.Kind_KIND_TOO_FEW, "no task was run", "gotong run --dry-run says who would take it; or another --verify"},
		{tasks.ErrRefused, controlv1.Kind_KIND_REFUSED, "", "gotong peers"},
		{tasks.ErrBusy, controlv1.Kind_KIND_BUSY, "", "the same command later"},
		{grid.ErrRemoved, controlv1.Kind_KIND_REFUSED, "the grid no longer talks to this peer", "ask for an invite and join from a new home"},
		{grid.ErrNotMember, controlv1.Kind_KIND_REFUSED, "", "gotong peers"},
		{grid.ErrUnreachable, controlv1.Kind_KIND_TEMPORARY, "", "gotong peers"},
		{context.DeadlineExceeded, controlv1.Kind_KIND_TEMPORARY, "", "the same command again"},
	} {
		if errors.Is(err, rule.is) {
			return &Failure{Kind: rule.kind, What: err.Error(), Meaning: rule.meaning, Next: rule.next}
		}
	}
	return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: err.Error()}
}
