package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A Session is one connection to the relay.
type Session struct {
	QUIC      *quic.Conn
	HTTP      *http3.ClientConn
	Authority string // host and port of the relay
	Template  string // the path of CONNECT-UDP
	Datagrams bool   // H3_DATAGRAM was announced
	watch     *watch
}

// Current holds the session that the verbs use.
type Current struct{ session atomic.Pointer[Session] }

// Get gives the session, once there is one.
func (c *Current) Get() (*Session, error) {
	session := c.session.Load()
	if session == nil {
		return nil, errors.New("not connected")
	}
	return session, nil
}

// Close closes the session, if there is one, and waits for its qlog.
func (c *Current) Close() {
	if session := c.session.Load(); session != nil {
		session.close()
	}
}

// A Dialer makes the QUIC connection, the way the peer's own documentation has it.
type Dialer func(ctx context.Context, address string, trust *tls.Config, config *quic.Config) (*quic.Conn, error)

// DialTransport dials from a quic.Transport, which has connection IDs of 4 bytes. Only these can migrate: from
// quic.DialAddr a client has IDs of length zero, which a second Transport does not recognize.
func DialTransport(ctx context.Context, address string, trust *tls.Config, config *quic.Config) (*quic.Conn, error) {
	relay, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: socket}
	return transport.Dial(ctx, relay, trust, config)
}

// Connect carries out `connect`.
func (c *Current) Connect(request *Request, dialer Dialer, config quic.Config) (any, error) {
	ctx, cancel := request.Deadline()
	defer cancel()
	session, err := dial(ctx, request, dialer, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil, Timeout(err.Error())
		}
		return nil, err
	}
	if previous := c.session.Swap(session); previous != nil {
		previous.close()
	}
	return map[string]any{"settings": session.announced()}, nil
}

func dial(ctx context.Context, request *Request, dialer Dialer, config quic.Config) (*Session, error) {
	relay, err := url.Parse(request.URL)
	if err != nil {
		return nil, err
	}
	trust, err := TLSConfig(request.CA)
	if err != nil {
		return nil, err
	}
	trust.ServerName = relay.Hostname()
	watch := newWatch()
	config.EnableDatagrams = true
	config.MaxIncomingStreams = -1            // as http3 has it for connections that it makes itself
	config.KeepAlivePeriod = 10 * time.Second // the same
	config.Tracer = func(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace {
		if request.Qlog != "" {
			os.Setenv("QLOGDIR", request.Qlog)
			watch.file = qlog.DefaultConnectionTracer(ctx, isClient, id)
		}
		return watch
	}
	conn, err := dialer(ctx, relay.Host, trust, &config)
	if err != nil {
		return nil, err
	}
	transport := &http3.Transport{EnableDatagrams: request.WithDatagrams()}
	session := &Session{conn, transport.NewClientConn(conn), relay.Host, request.Template, request.WithDatagrams(), watch}
	select {
	case <-session.HTTP.ReceivedSettings():
		return session, nil
	case <-conn.Context().Done():
		return nil, context.Cause(conn.Context())
	case <-ctx.Done():
		session.close()
		return nil, errors.New("no SETTINGS came")
	}
}

// TLSConfig trusts one authority, for HTTP/3.
func TLSConfig(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}}, nil
}

// announced gives the relay's SETTINGS by number. http3 tells a 0 in 8 and 51 not apart from an absent setting.
func (s *Session) announced() map[string]uint64 {
	settings := s.HTTP.Settings()
	numbers := make(map[string]uint64)
	for number, value := range settings.Other {
		numbers[strconv.FormatUint(number, 10)] = value
	}
	if settings.EnableExtendedConnect {
		numbers["8"] = 1
	}
	if settings.EnableDatagrams {
		numbers["51"] = 1
	}
	s.watch.mutex.Lock()
	defer s.watch.mutex.Unlock()
	if s.watch.maxFieldSection > 0 {
		numbers["6"] = uint64(s.watch.maxFieldSection)
	}
	return numbers
}

func (s *Session) close() {
	s.QUIC.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	s.watch.finish()
}

// migrate moves the connection to a new socket (RFC 9000 §9): the path is validated first.
func (s *Session) migrate(ctx context.Context) error {
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	path, err := s.QUIC.AddPath(&quic.Transport{Conn: socket})
	if err != nil {
		socket.Close()
		return err
	}
	if err := path.Probe(ctx); err != nil {
		if ctx.Err() != nil {
			return Timeout("the new path was not validated")
		}
		return err
	}
	return path.Switch()
}

// Verbs are those of the connection itself.
func (c *Current) Verbs() map[string]Verb {
	return map[string]Verb{
		"migrate": c.on(func(ctx context.Context, s *Session) (any, error) {
			return nil, s.migrate(ctx)
		}),
		"wait_goaway": c.on(func(ctx context.Context, s *Session) (any, error) {
			stream, err := s.watch.waitGoaway(ctx)
			return map[string]uint64{"stream": stream}, err
		}),
		"wait_closed": c.on(func(ctx context.Context, s *Session) (any, error) {
			select {
			case <-s.QUIC.Context().Done():
				return closing(context.Cause(s.QUIC.Context())), nil
			case <-ctx.Done():
				return nil, Timeout("the connection is open")
			}
		}),
		"close": c.on(func(_ context.Context, s *Session) (any, error) {
			s.close()
			return nil, nil
		}),
	}
}

func (c *Current) on(verb func(context.Context, *Session) (any, error)) Verb {
	return func(request *Request) (any, error) {
		session, err := c.Get()
		if err != nil {
			return nil, err
		}
		ctx, cancel := request.Deadline()
		defer cancel()
		return verb(ctx, session)
	}
}

// closing reads why a connection is over. A silent end, such as an idle timeout, has no code.
func closing(cause error) map[string]any {
	result := map[string]any{"code": nil, "reason": cause.Error()}
	if application, ok := errors.AsType[*quic.ApplicationError](cause); ok {
		result["code"] = uint64(application.ErrorCode)
	} else if transport, ok := errors.AsType[*quic.TransportError](cause); ok {
		result["code"] = uint64(transport.ErrorCode)
	}
	return result
}
