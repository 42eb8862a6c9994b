package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	controlv1 "gotong/proto/control/v1"
)

const (
	uploadPieceBytes = 256 << 10
	// cancelWait is how long the peer may take to say what was running.
	cancelWait = 5 * time.Second
)

// errSend says that the peer takes no more messages; it says why itself.
var errSend = errors.New("the peer ended the run")

// runCall is the conversation with the peer about one run. Ctrl-C cancels the
// run on the peer, so that it can say what was running; the conversation ends
// when it has, or soon after.
type runCall struct {
	peer   controlv1.ControlClient
	user   context.Context // ends with Ctrl-C
	ctx    context.Context
	cancel context.CancelFunc
	stream grpc.BidiStreamingClient[controlv1.RunRequest, controlv1.RunEvent]

	mu      sync.Mutex // sending
	sent    bool       // the run is under way: it can be cancelled
	stopped bool       // the user wants no more
	stop    func() bool
}

func (r *clientRun) begin(ctx context.Context, peer controlv1.ControlClient) *runCall {
	c := &runCall{peer: peer, user: ctx}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

func (c *runCall) open() (err error) {
	if c.stream, err = c.peer.Run(c.ctx); err != nil {
		return err
	}
	c.stop = context.AfterFunc(c.user, c.interrupt)
	return nil
}

// end ends the conversation and leaves nothing behind.
func (c *runCall) end() {
	if c.stop != nil {
		c.stop()
	}
	c.cancel()
}

// interrupt cancels the run. From now on a signal ends the command at once.
func (c *runCall) interrupt() {
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if !c.sent {
		c.cancel()
		return
	}
	if c.stream.Send(&controlv1.RunRequest{Request: &controlv1.RunRequest_Cancel{Cancel: &controlv1.RunCancel{}}}) != nil {
		c.cancel()
		return
	}
	time.AfterFunc(cancelWait, c.cancel)
}

// interrupted reports whether the user wants no more.
func (c *runCall) interrupted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// because returns err, or that the run was interrupted when err came of that.
func (c *runCall) because(err error) error {
	if c.interrupted() {
		return &failure{code: exitInterrupted, what: "interrupted", meaning: "what was printed is complete; the other tasks were given up", cause: err}
	}
	return err
}

func (c *runCall) send(request *controlv1.RunRequest) error {
	if err := c.stream.Send(request); err != nil {
		return fmt.Errorf("%w: %w", errSend, err)
	}
	return nil
}

// sendEnd says that everything was sent.
func (c *runCall) sendEnd() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = true
	return c.send(&controlv1.RunRequest{Request: &controlv1.RunRequest_End{End: &controlv1.RunEnd{}}})
}

func (c *runCall) sendData(data []byte) error {
	for len(data) > 0 {
		n := min(len(data), uploadPieceBytes)
		if err := c.send(&controlv1.RunRequest{Request: &controlv1.RunRequest_Data{Data: data[:n]}}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (c *runCall) sendFileEnd() error {
	return c.send(&controlv1.RunRequest{Request: &controlv1.RunRequest_FileEnd{FileEnd: &controlv1.RunFileEnd{}}})
}
