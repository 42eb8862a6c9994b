package shardrpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid"
	shardsv1 "gotong/proto/shards/v1"
	"gotong/storage"
)

// Errors of this package. Test with errors.Is.
var (
	// ErrStalled: the other side sent or took nothing for the idle limit.
	ErrStalled = errors.New("transfer stalled")
	// ErrProtocol: the other side sent what the protocol does not allow.
	ErrProtocol = errors.New("protocol violated")
	// ErrBusy: the peer answers no more calls of this caller for now.
	ErrBusy = errors.New("too many calls at once")
)

// maxErrorText bounds the text of an error that travels.
const maxErrorText = 512

// condition ties an error to the word and the status code that carry it.
type condition struct {
	reason string
	code   codes.Code
	err    error
}

// conditions lists every error that is the same on both sides of the wire. An
// error that matches several travels as the first of them.
var conditions = []condition{
	{"not-found", codes.NotFound, storage.ErrNotFound},
	{"corrupt", codes.DataLoss, storage.ErrCorrupt},
	{"quota", codes.ResourceExhausted, storage.ErrQuota},
	{"full", codes.ResourceExhausted, storage.ErrFull},
	{"deleted", codes.FailedPrecondition, storage.ErrDeleted},
	{"stale-epoch", codes.FailedPrecondition, storage.ErrStaleEpoch},
	{"exists", codes.AlreadyExists, storage.ErrExists},
	{"disk", codes.Internal, storage.ErrDisk},
	{"head-gap", codes.FailedPrecondition, storage.ErrHeadGap},
	{"head-fork", codes.FailedPrecondition, storage.ErrHeadFork},
	{"too-few-shards", codes.FailedPrecondition, storage.ErrTooFewShards},
	{"too-few-peers", codes.FailedPrecondition, storage.ErrTooFewPeers},
	{"removed", codes.PermissionDenied, grid.ErrRemoved},
	{"not-member", codes.PermissionDenied, grid.ErrNotMember},
	{"denied", codes.PermissionDenied, storage.ErrDenied},
	{"unknown-peer", codes.NotFound, grid.ErrUnknownPeer},
	{"busy", codes.ResourceExhausted, ErrBusy},
	{"stalled", codes.DeadlineExceeded, ErrStalled},
	{"protocol", codes.InvalidArgument, ErrProtocol},
	{"unreachable", codes.Unavailable, grid.ErrUnreachable},
	{"cancelled", codes.Canceled, context.Canceled},
	{"deadline", codes.DeadlineExceeded, context.DeadlineExceeded},
}

// plainCodes are the codes of statuses that gRPC itself makes, without a
// reason, and what they mean here.
var plainCodes = map[codes.Code]error{
	codes.Unavailable:        grid.ErrUnreachable,
	codes.Canceled:           context.Canceled,
	codes.DeadlineExceeded:   context.DeadlineExceeded,
	codes.PermissionDenied:   storage.ErrDenied,
	codes.ResourceExhausted:  ErrBusy,
	codes.Unimplemented:      ErrProtocol,
	codes.InvalidArgument:    ErrProtocol,
	codes.FailedPrecondition: ErrProtocol,
}

// toStatus turns an error of this side into the status that carries it.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	text := cut(words(err), maxErrorText)
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			st, detailErr := status.New(c.code, text).WithDetails(&shardsv1.Failure{Reason: c.reason})
			if detailErr != nil {
				return status.Error(c.code, text)
			}
			return st.Err()
		}
	}
	if _, ok := status.FromError(err); ok {
		return err // gRPC's own, such as a broken stream
	}
	return status.Error(codes.Unknown, text)
}

// words returns what err says, without the operation and the shard in front of
// it: the other side knows what it asked for and puts its own there.
func words(err error) string {
	var named *storage.Error
	if errors.As(err, &named) && named.Err != nil {
		return named.Err.Error()
	}
	return err.Error()
}

// fromStatus turns what gRPC returned into the error of the other side. ctx is
// the one of the call: when it ended, its cause is the reason.
func fromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := cut(st.Message(), maxErrorText)
	for _, detail := range st.Details() {
		failure, ok := detail.(*shardsv1.Failure)
		if !ok {
			continue
		}
		for _, c := range conditions {
			if c.reason == failure.Reason {
				return &remoteError{text, c.err}
			}
		}
	}
	if cause, ok := plainCodes[st.Code()]; ok {
		return &remoteError{text, cause}
	}
	return &remoteError{text, nil}
}

// remoteError is an error as the other side put it. The text is theirs: it is
// shown, never believed.
type remoteError struct {
	text  string
	cause error // nil when it is no condition that this side knows
}

// Error returns the words of the other side, behind those of the condition
// where they do not contain them.
func (e *remoteError) Error() string {
	switch {
	case e.cause == nil:
		return "the peer answered: " + e.text
	case strings.Contains(e.text, e.cause.Error()):
		return e.text
	}
	return e.cause.Error() + ": " + e.text
}

// Unwrap returns the condition.
func (e *remoteError) Unwrap() error { return e.cause }

// stalled returns the error of a transfer that stood still for limit.
func stalled(limit time.Duration) error {
	return fmt.Errorf("%w: nothing moved for %s", ErrStalled, limit)
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// cut shortens s to at most n bytes at the border of a character.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "�")
}
