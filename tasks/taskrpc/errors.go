package taskrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

// problems maps the errors that both sides know to what travels.
var problems = []struct {
	err  error
	kind tasksv1.Kind
	code codes.Code
}{
	{tasks.ErrInvalid, tasksv1.Kind_KIND_INVALID, codes.InvalidArgument},
	{tasks.ErrBusy, tasksv1.Kind_KIND_BUSY, codes.ResourceExhausted},
	{tasks.ErrUnfit, tasksv1.Kind_KIND_UNFIT, codes.PermissionDenied}, // before what it wraps
	{tasks.ErrRefused, tasksv1.Kind_KIND_REFUSED, codes.PermissionDenied},
	{tasks.ErrNoContent, tasksv1.Kind_KIND_NO_CONTENT, codes.NotFound},
	{tasks.ErrContent, tasksv1.Kind_KIND_CONTENT, codes.DataLoss},
	{tasks.ErrStoreFull, tasksv1.Kind_KIND_STORE_FULL, codes.ResourceExhausted},
	{tasks.ErrSandbox, tasksv1.Kind_KIND_SANDBOX, codes.FailedPrecondition},
	{tasks.ErrStopped, tasksv1.Kind_KIND_STOPPED, codes.Unavailable},
	{grid.ErrNotMember, tasksv1.Kind_KIND_NOT_MEMBER, codes.PermissionDenied},
}

// toStatus turns an error of the worker into the status that the caller gets.
// The text of errors that are not in the list stays here: it may name paths.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, p := range problems {
		if errors.Is(err, p.err) {
			return problemStatus(err, p.kind, p.code)
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "took too long")
	}
	return status.Error(codes.Internal, "the worker failed")
}

// missingMost bounds the missing contents of a status, which travels among headers.
// An offer names all of them.
const missingMost = 64

func problemStatus(err error, kind tasksv1.Kind, code codes.Code) error {
	problem := &tasksv1.Problem{Kind: kind}
	if missing, ok := errors.AsType[*tasks.MissingContent](err); ok {
		for _, id := range missing.IDs[:min(len(missing.IDs), missingMost)] {
			problem.Missing = append(problem.Missing, id[:])
		}
	}
	st, detailErr := status.New(code, clip(err.Error())).WithDetails(problem)
	if detailErr != nil {
		return status.Error(code, clip(err.Error()))
	}
	return st.Err()
}

// remoteError is an error of the other side: its text, and which of the known
// errors it is.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

// fromStatus turns what a call returned into an error that wraps one of the
// known errors, a context error, or grid.ErrUnreachable.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, detail := range st.Details() {
		if problem, ok := detail.(*tasksv1.Problem); ok {
			if cause := causeOf(problem); cause != nil {
				return &remoteError{clip(st.Message()), cause}
			}
		}
	}
	text := clip(st.Message())
	switch st.Code() {
	case codes.Canceled:
		return &remoteError{text, context.Canceled}
	case codes.DeadlineExceeded:
		return &remoteError{text, context.DeadlineExceeded}
	case codes.Unavailable:
		return &remoteError{text, grid.ErrUnreachable}
	}
	return fmt.Errorf("%s: %s", st.Code(), text)
}

func causeOf(problem *tasksv1.Problem) error {
	for _, p := range problems {
		if p.kind != problem.Kind {
			continue
		}
		if problem.Kind != tasksv1.Kind_KIND_NO_CONTENT || len(problem.Missing) == 0 {
			return p.err
		}
		missing := &tasks.MissingContent{}
		for _, raw := range problem.Missing {
			if id, ok := parseContentID(raw); ok && len(missing.IDs) <= tasks.MaxInputs {
				missing.IDs = append(missing.IDs, id)
			}
		}
		return missing
	}
	return nil
}

// clip bounds a text that travels.
func clip(s string) string { return s[:min(len(s), maxReasonBytes)] }
