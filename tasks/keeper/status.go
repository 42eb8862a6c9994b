package keeper

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gotong/grid"
)

// statuses maps the errors that both sides know to what travels.
var statuses = []struct {
	err  error
	code codes.Code
}{
	{ErrUnknownJob, codes.NotFound},
	{ErrRefused, codes.ResourceExhausted},
	{ErrDenied, codes.PermissionDenied},
	{ErrInvalid, codes.InvalidArgument},
	{grid.ErrNotMember, codes.Unauthenticated},
}

// toStatus makes an error of this peer one that travels.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return status.Error(s.code, err.Error())
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// remote is an error of another peer that this side knows.
type remote struct {
	known error
	text  string
}

func (r *remote) Error() string { return r.text }

// Unwrap makes errors.Is find the known error.
func (r *remote) Unwrap() error { return r.known }

// maxRemoteText bounds what is kept of another peer's words.
const maxRemoteText = 512

// fromStatus makes an error that travelled one of this package.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := s.Message()
	if len(text) > maxRemoteText {
		text = text[:maxRemoteText]
	}
	for _, known := range statuses {
		if s.Code() == known.code {
			return &remote{known.err, text}
		}
	}
	return fmt.Errorf("%s: %w", s.Code(), err)
}
