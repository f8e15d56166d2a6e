#!/bin/bash
# First boot of a training instance (cloud-init, as root): installs the training run as a service, so that this boot
# and every later one trains and then powers off; powering off stops the instance (see the launch template).
# @@...@@ are filled in when the stack is synthesized; ROOT is empty but in tests.
set -uo pipefail
# Before anything that can fail: the hard limit.
shutdown -h +@@MAX_MINUTES@@

install_service() {
  set -e
  mkdir -p "${ROOT:-}/usr/local/sbin" "${ROOT:-}/etc/systemd/system"
  cat > "${ROOT:-}/etc/kennel-train.env" <<'KENNEL_ENV_END'
BUCKET=@@BUCKET@@
PREFIX=@@PREFIX@@
IMAGE=@@IMAGE@@
AWS_DEFAULT_REGION=@@REGION@@
KENNEL_ENV_END
  cat > "${ROOT:-}/usr/local/sbin/kennel-train" <<'KENNEL_TRAIN_END'
@@TRAIN@@
KENNEL_TRAIN_END
  chmod 0755 "${ROOT:-}/usr/local/sbin/kennel-train"
  # ExecStopPost runs however the service ends: done, failed, killed, out of time, or never started.
  # KillMode=mixed: only the script gets SIGTERM; it stops its container and uploads what there is.
  cat > "${ROOT:-}/etc/systemd/system/kennel-train.service" <<'KENNEL_UNIT_END'
[Unit]
Description=Kennel training run, then power off
Wants=network-online.target docker.service
After=network-online.target docker.service

[Service]
Type=exec
EnvironmentFile=/etc/kennel-train.env
ExecStartPre=-/usr/sbin/shutdown -h +@@MAX_MINUTES@@
ExecStart=/usr/local/sbin/kennel-train
ExecStopPost=/usr/sbin/shutdown -h now
RuntimeMaxSec=@@RUN_MINUTES@@min
KillMode=mixed
TimeoutStopSec=5min

[Install]
WantedBy=multi-user.target
KENNEL_UNIT_END
  systemctl daemon-reload
  systemctl enable kennel-train.service
  systemctl start --no-block kennel-train.service
}

# A subshell, not `if install_service`: bash switches `set -e` off inside a condition.
(install_service)
installed=$?
[ "$installed" -eq 0 ] || shutdown -h now
exit "$installed"
