package invite

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/proto"
)

// Bounds of a join connection.
const (
	MaxFrameBytes  = 128 << 10        // one message
	RequestTimeout = 10 * time.Second // from the accepted connection to the whole request
	FrameTimeout   = 30 * time.Second // for each further frame
)

// exporterLabel names the keying material to which proofs are bound.
const exporterLabel = "gotong join v1"

// role keeps the two proofs of one session apart.
type role string

const (
	roleJoiner  role = "joiner"
	roleInviter role = "inviter"
)

// JoinConn is a connection on which the other side may be a stranger, but whose
// key is proved. *peernet.Conn is one.
type JoinConn interface {
	net.Conn
	// PeerKey returns the public key of the other side.
	PeerKey() ed25519.PublicKey
	// ExportKeyingMaterial returns n bytes that only the two ends of this TLS
	// session know (RFC 5705).
	ExportKeyingMaterial(label string, context []byte, n int) ([]byte, error)
}

// proofOf proves, to the other end of this session only, that the sender has
// the secret of the invite.
func proofOf(conn JoinConn, secret []byte, by role, id ID) ([]byte, error) {
	material, err := conn.ExportKeyingMaterial(exporterLabel, id[:], sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("keying material of the session: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(material)
	mac.Write([]byte(by))
	mac.Write(id[:])
	return mac.Sum(nil), nil
}

func writeFrame(w io.Writer, m proto.Message) error {
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), m)
	if err != nil {
		return fmt.Errorf("encode a join message: %w", err)
	}
	n := len(frame) - 4
	if n > MaxFrameBytes {
		return fmt.Errorf("join message of %d bytes, at most %d", n, MaxFrameBytes)
	}
	binary.BigEndian.PutUint32(frame, uint32(n))
	_, err = w.Write(frame)
	return err
}

// errFrame says that the other side sent something that is no message.
var errFrame = errors.New("malformed join message")

func readFrame(r io.Reader, m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrameBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", errFrame, n, MaxFrameBytes)
	}
	// The buffer grows with what arrives: a length alone costs nothing.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(body.Bytes(), m); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// withCancel makes the connection fail as soon as ctx ends. The returned
// function undoes that.
func withCancel(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // a closed connection fails anyhow
}

// deadline gives the connection d from now, unless ctx has ended.
func deadline(ctx context.Context, conn net.Conn, d time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if ctx.Err() != nil { // it may have ended just before the deadline was set
		return context.Cause(ctx)
	}
	return nil
}
