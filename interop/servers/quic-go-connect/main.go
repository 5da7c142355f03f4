// A plain CONNECT proxy (RFC 9114 §4.4) on quic-go's HTTP/3 server, without authentication: to play cases against, and
// to measure beside the relay. It is what one would write with the package, and no more.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// Tunnels of one connection; quic-go's default of 100 is below what the cases open at once.
	maxStreams = 4096
	// How long a target may take to accept.
	connectTime = 10 * time.Second
	// How long tunnels may go on after the proxy was asked to stop.
	grace = 2 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:4433", "address and UDP port")
	certificate := flag.String("cert", "", "PEM file of the certificate chain")
	key := flag.String("key", "", "PEM file of the private key")
	flag.Parse()
	if err := run(*listen, *certificate, *key); err != nil {
		log.Fatal(err)
	}
}

func run(listen, certificate, key string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	server := &http3.Server{
		TLSConfig:  http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig: &quic.Config{MaxIncomingStreams: maxStreams},
		Handler:    http.HandlerFunc(connect),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		waitForSignal()
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		server.Shutdown(ctx) // with GOAWAY; closes what is left when the time is over
	}()
	fmt.Println("listening on", socket.LocalAddr())
	if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

// connect handles one request.
func connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Proto != "HTTP/3.0" { // quic-go has :protocol there
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	dialer := net.Dialer{Timeout: connectTime}
	target, err := dialer.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(statusOf(err))
		return
	}
	w.WriteHeader(http.StatusOK)
	stream, err := w.(http3.HTTPStreamer).HTTPStream()
	if err != nil {
		target.Close()
		return
	}
	splice(stream, target.(*net.TCPConn))
}

// statusOf says why there is no tunnel (RFC 9209 §2.3).
func statusOf(err error) int {
	if _, malformed := errors.AsType[*net.AddrError](err); malformed {
		return http.StatusBadRequest
	}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

func waitForSignal() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	<-asked
}
