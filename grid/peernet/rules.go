package peernet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"gotong/grid"
)

// Rule decides whether a caller may call a method; nil allows. It runs before
// the request is read, so what depends on the request is the method's own
// business. A rule is called only for active members of the roster.
type Rule func(ctx context.Context, caller grid.PeerID) error

// Rules is the closed table from full method name ("/package.Service/Method")
// to rule. A method that is not listed cannot be called.
type Rules map[string]Rule

// AnyMember is the rule of methods that every active member may call.
func AnyMember(context.Context, grid.PeerID) error { return nil }

// Services collects what a server serves. It is a grpc.ServiceRegistrar, so
// the generated RegisterXServer functions fill it.
type Services struct {
	all []service
}

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *Services) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.all = append(s.all, service{desc, impl})
}

// methods lists the full names of all methods.
func (s *Services) methods() []string {
	var names []string
	for _, svc := range s.all {
		for _, m := range svc.desc.Methods {
			names = append(names, "/"+svc.desc.ServiceName+"/"+m.MethodName)
		}
		for _, m := range svc.desc.Streams {
			names = append(names, "/"+svc.desc.ServiceName+"/"+m.StreamName)
		}
	}
	return names
}

// ErrRules says that methods and rules do not match one to one.
var ErrRules = errors.New("methods and rules do not match")

// Check returns ErrRules with the names when a method has no rule, or a rule
// has no method.
func (r Rules) Check(services *Services) error {
	var faults []error
	methods := services.methods()
	for _, name := range methods {
		if r[name] == nil {
			faults = append(faults, fmt.Errorf("%w: no rule for %s", ErrRules, name))
		}
	}
	for name := range r {
		if !slices.Contains(methods, name) {
			faults = append(faults, fmt.Errorf("%w: no method for the rule of %s", ErrRules, name))
		}
	}
	return errors.Join(faults...)
}

// authorise is run for each call before anything else.
func (n *Net) authorise(ctx context.Context, rules Rules, method string) error {
	caller, ok := CallerFrom(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no peer identity on this connection")
	}
	if err := n.cfg.Directory.Status(caller).err(); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	rule := rules[method]
	if rule == nil {
		return status.Errorf(codes.PermissionDenied, "%s is not open to any peer", method)
	}
	err := rule(ctx, caller)
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.PermissionDenied, err.Error())
}

// AuthInfo is the credentials.AuthInfo of gRPC connections of this package.
type AuthInfo struct {
	credentials.CommonAuthInfo
	// Peer is who is at the other end.
	Peer grid.PeerID
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "gotong peer" }

// CallerFrom returns who called the method that runs with ctx, as proved by the
// connection; false outside of a gRPC method.
func CallerFrom(ctx context.Context) (grid.PeerID, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return grid.PeerID{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Peer, ok
}
