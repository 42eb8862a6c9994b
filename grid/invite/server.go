package invite

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/grid/roster"
	invitev1 "gotong/proto/invite/v1"
)

// MaxConnections bounds the join connections served at once. Those beyond are
// closed at once: strangers may open them.
const MaxConnections = 128

// Config is what a Server works with; none of it is closed by the server.
type Config struct {
	Node    identity.NodeKey
	Roster  *roster.Roster
	Records *roster.Records
	Book    *Book
	Logger  *slog.Logger // nil: discard
}

// Server answers join connections: it redeems this peer's invites and takes
// introductions.
type Server struct {
	cfg Config
}

// NewServer returns a server; it starts nothing.
func NewServer(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{c}
}

// Run serves the connections of a listener, which have to be JoinConns, until
// ctx ends or the listener fails. It closes the listener and returns when every
// connection has ended: nil after ctx ended, else the listener's error.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	defer listener.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	slots := make(chan struct{}, MaxConnections)
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept join connections: %w", err)
		}
		join, ok := conn.(JoinConn)
		select {
		case slots <- struct{}{}:
		default:
			ok = false
		}
		if !ok {
			_ = conn.Close() // nothing was said on it
			continue
		}
		serving.Go(func() {
			defer func() { <-slots }()
			s.Serve(ctx, join)
		})
	}
}

// Serve answers one connection and closes it.
func (s *Server) Serve(ctx context.Context, conn JoinConn) {
	defer conn.Close()
	defer withCancel(ctx, conn)()
	if err := s.serve(ctx, conn); err != nil {
		s.cfg.Logger.Info("join connection refused", "peer", peerOf(conn), "err", err)
	}
}

func peerOf(conn JoinConn) grid.PeerID { return grid.PeerIDOf(conn.PeerKey()) }

func (s *Server) serve(ctx context.Context, conn JoinConn) error {
	if err := deadline(ctx, conn, RequestTimeout); err != nil {
		return err
	}
	var request invitev1.Request
	if err := readFrame(conn, &request); err != nil {
		if errors.Is(err, errFrame) {
			return errors.Join(err, s.answer(ctx, conn, &invitev1.Response{Status: invitev1.Status_STATUS_BAD_REQUEST}))
		}
		return err
	}
	response, then, err := s.ask(conn, &request)
	if err != nil {
		return errors.Join(err, s.answer(ctx, conn, &invitev1.Response{Status: statusOf(err), Message: reason(err)}))
	}
	if err := s.answer(ctx, conn, response); err != nil || then == sendNothing {
		return err
	}
	var records [][]byte
	if then == sendAll {
		records = s.cfg.Records.All()
	}
	return sendBatches(ctx, conn, s.cfg.Roster.All(), records, s.cfg.Roster.Learnt())
}

// follow is what goes out behind a response.
type follow int

const (
	sendNothing follow = iota
	sendStatements
	sendAll // the records too
)

// reason is what the other side may read of an error: what its request lacked,
// never what failed here.
func reason(err error) string {
	if errors.Is(err, ErrBadRequest) {
		return err.Error()
	}
	return ""
}

func (s *Server) answer(ctx context.Context, conn JoinConn, r *invitev1.Response) error {
	if err := deadline(ctx, conn, FrameTimeout); err != nil {
		return err
	}
	return writeFrame(conn, r)
}

// ask does what the request wants.
func (s *Server) ask(conn JoinConn, r *invitev1.Request) (*invitev1.Response, follow, error) {
	switch ask := r.GetAsk().(type) {
	case *invitev1.Request_Redeem:
		proof, err := s.redeem(conn, ask.Redeem)
		return &invitev1.Response{Status: invitev1.Status_STATUS_OK, Proof: proof}, sendAll, err
	case *invitev1.Request_Introduce:
		then := sendNothing
		if ask.Introduce.GetWantRoster() {
			then = sendAll
		}
		return &invitev1.Response{Status: invitev1.Status_STATUS_OK}, then, s.introduce(peerOf(conn), ask.Introduce)
	case *invitev1.Request_Find:
		then := sendNothing
		if ask.Find.GetWantRoster() {
			then = sendStatements
		}
		response, err := s.find(conn, ask.Find)
		return response, then, err
	default:
		return nil, sendNothing, fmt.Errorf("%w: not a known question", ErrBadRequest)
	}
}

// introduce merges statements that make the peer of this connection a member,
// and nothing else.
func (s *Server) introduce(peer grid.PeerID, m *invitev1.Introduce) error {
	total := 0
	for _, statement := range m.GetStatements() {
		total += len(statement)
	}
	if total > roster.MaxPathBytes {
		return fmt.Errorf("%w: statements of %d bytes, at most %d", ErrBadRequest, total, roster.MaxPathBytes)
	}
	err := s.cfg.Roster.MergeFor(peer, m.GetStatements())
	if errors.Is(err, roster.ErrStatement) {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return err
}

// redeem admits the peer of this connection on an invite and returns this
// peer's own proof.
func (s *Server) redeem(conn JoinConn, m *invitev1.Redeem) ([]byte, error) {
	id, params, err := papers(conn, m)
	if err != nil {
		return nil, err
	}
	joiner := peerOf(conn)
	invite, err := s.prove(conn, id, m.GetProof())
	if err != nil {
		return nil, err
	}
	params.GrantAdmin = invite.grantAdmin
	if err := s.cfg.Roster.CheckAdmit(s.cfg.Node.PeerID(), params); err != nil {
		if errors.Is(err, grid.ErrRemoved) || errors.Is(err, roster.ErrAuthor) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := s.cfg.Book.use(id, joiner); err != nil {
		return nil, err
	}
	if err := s.admit(joiner, params, m.GetDevice()); err != nil {
		return nil, err
	}
	s.keepRecord(joiner, m.GetRecord())
	s.cfg.Logger.Info("peer joined on an invite", "peer", joiner)
	return proofOf(conn, invite.secret[:], roleInviter, id)
}

// prove checks the joiner's proof and whether it may use the invite.
func (s *Server) prove(conn JoinConn, id ID, proof []byte) (stored, error) {
	secret, err := s.cfg.Book.secret(id)
	if err != nil {
		return stored{}, err
	}
	want, err := proofOf(conn, secret, roleJoiner, id)
	if err != nil {
		return stored{}, err
	}
	return s.cfg.Book.check(id, peerOf(conn), hmac.Equal(proof, want))
}

// papers reads the fixed parts of the request.
func papers(conn JoinConn, m *invitev1.Redeem) (ID, roster.AdmitParams, error) {
	bad := func(err error) (ID, roster.AdmitParams, error) {
		return ID{}, roster.AdmitParams{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if len(m.GetInvite()) != len(ID{}) {
		return bad(errors.New("no invite id"))
	}
	delegation, err := identity.ParseSigned(m.GetDelegation())
	if err != nil {
		return bad(fmt.Errorf("delegation: %w", err))
	}
	consent, err := identity.ParseSigned(m.GetConsent())
	if err != nil {
		return bad(fmt.Errorf("consent: %w", err))
	}
	return ID(m.GetInvite()), roster.AdmitParams{PeerKey: conn.PeerKey(), Delegation: delegation, Consent: consent}, nil
}

// admit brings the joiner in: by its owner's own word if the owner is a member
// already and becomes no more than that, else by this peer's.
func (s *Server) admit(joiner grid.PeerID, p roster.AdmitParams, device []byte) error {
	view, owner := s.cfg.Roster.View(), grid.OwnerIDOf(p.Delegation.Key)
	newDevice := view.Status(joiner) != roster.StatusActive && view.OwnerStatus(owner) == roster.StatusActive
	if newDevice && len(device) > 0 && !p.GrantAdmin {
		err := s.cfg.Roster.MergeFor(joiner, [][]byte{device})
		if err == nil {
			return nil
		}
		s.cfg.Logger.Info("device statement does not count, admitting instead", "peer", joiner, "err", err)
	}
	return s.cfg.Roster.Admit(s.cfg.Node, p)
}

// keepRecord stores the joiner's record; without it the joiner is a member all
// the same and sends it again by itself.
func (s *Server) keepRecord(joiner grid.PeerID, encoded []byte) {
	if len(encoded) == 0 {
		return
	}
	record, err := roster.ParseRecord(encoded)
	if err == nil && record.Peer != joiner {
		err = errors.New("record of another peer")
	}
	if err == nil {
		_, err = s.cfg.Records.Put(encoded, s.cfg.Roster.View())
	}
	if err != nil {
		s.cfg.Logger.Warn("record of a joining peer not kept", "peer", joiner, "err", err)
	}
}
