package shardrpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid"
	"gotong/storage"
)

// sentinels are all errors that callers tell apart; conditions must have each.
var sentinels = []error{
	storage.ErrNotFound, storage.ErrCorrupt, storage.ErrQuota, storage.ErrFull, storage.ErrDeleted, storage.ErrDenied,
	storage.ErrTooFewShards, storage.ErrTooFewPeers, storage.ErrStaleEpoch, storage.ErrExists, storage.ErrDisk,
	storage.ErrHeadGap, storage.ErrHeadFork,
	grid.ErrNotMember, grid.ErrRemoved, grid.ErrUnknownPeer, grid.ErrUnreachable,
	ErrBusy, ErrStalled, ErrProtocol, context.Canceled, context.DeadlineExceeded,
}

func TestErrorsAreTheSameOnBothSides(t *testing.T) {
	if len(sentinels) != len(conditions) {
		t.Errorf("%d errors tested, %d known", len(sentinels), len(conditions))
	}
	for _, want := range sentinels {
		sent := fmt.Errorf("write shard: %w", want)
		got := fromStatus(t.Context(), toStatus(sent))
		for _, other := range sentinels {
			if errors.Is(got, other) != (other == want) {
				t.Errorf("%v arrives as %v: is %v is %t", want, got, other, errors.Is(got, other))
			}
		}
		if got.Error() != sent.Error() {
			t.Errorf("%q arrives as %q", sent, got)
		}
	}
	named := &storage.Error{Op: "get", Err: fmt.Errorf("shard 7: %w", storage.ErrNotFound)}
	if got := fromStatus(t.Context(), toStatus(named)); got.Error() != "shard 7: not found" || !errors.Is(got, storage.ErrNotFound) {
		t.Errorf("what this side adds anyway travels: %v", got)
	}
	if fromStatus(t.Context(), toStatus(nil)) != nil {
		t.Error("success arrives as an error")
	}
}

func TestUnknownErrorsStayWords(t *testing.T) {
	got := fromStatus(t.Context(), toStatus(errors.New("out of cheese")))
	if got == nil || !strings.Contains(got.Error(), "out of cheese") || errors.Unwrap(got) != nil {
		t.Errorf("arrives as %v", got)
	}
	long := fromStatus(t.Context(), toStatus(errors.New(strings.Repeat("é", 4000))))
	if len(long.Error()) > 2*maxErrorText {
		t.Errorf("a text of %d bytes arrives", len(long.Error()))
	}
}

func TestPlainStatusesHaveAMeaning(t *testing.T) {
	err := fromStatus(t.Context(), status.Error(codes.Unavailable, "connection refused"))
	if !errors.Is(err, grid.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("unavailable means %v", err)
	}
	cause := errors.New("had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := fromStatus(ctx, status.Error(codes.Canceled, "cancelled")); !errors.Is(err, cause) {
		t.Errorf("the end of the context arrives as %v", err)
	}
}
