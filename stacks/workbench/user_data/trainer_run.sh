#!/bin/bash
# One training run on one EC2 instance: the image, the commands and the /opt/ml layout of the SageMaker jobs.
# The instance's tags say what to train:
#   DataManifest     key of an uploaded data set's manifest; without it the newest in the bucket
#   Hyperparameters  JSON as SageMaker passes it, e.g. {"epochs": "3"}; without it the defaults
#   Duplicates       fail, remove or report: what becomes of an image that is in two splits; without it fail
# A run that was cut off keeps its files on the disk: start the instance again and it goes on from its checkpoint.
# Needs BUCKET, PREFIX, IMAGE, AWS_DEFAULT_REGION. OPT_ML and IMDS differ only in tests.
set -uo pipefail
ml="${OPT_ML:-/opt/ml}"
imds="${IMDS:-http://169.254.169.254}"

about() {
  local token
  token=$(curl -sfm 10 -X PUT "$imds/latest/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 300") || return
  curl -sfm 10 -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/$1"
}

tag() { about "tags/instance/$1" || true; } # an absent tag is a 404

# As JSON: for text the CLI asks the query of each thousand objects by itself.
newest_manifest() {
  local newest='sort_by(Contents[?ends_with(Key, `.manifest`)] || `[]`, &LastModified)[-1].Key'
  aws s3api list-objects-v2 --bucket "$BUCKET" --prefix datasets/ --query "$newest" --output json | tr -d '"'
}

# Nothing of the run before is left but what runs on the same data share.
begin() {
  find "$ml" -mindepth 1 -maxdepth 1 ! -name 'checkpoints*' -exec rm -rf {} +
  mkdir -p "$ml"/{input/{config,data},model,output,checkpoints,processing/{input/{dataset,model},output}}
  echo "$(date -u +%Y%m%dT%H%M%SZ)-$(about instance-id || echo unknown)" > "$ml/run-id"
}

# No network, as SageMaker's isolated jobs have none.
container() {
  local gpus=()
  if command -v nvidia-smi > /dev/null; then gpus=(--gpus all); fi
  docker rm --force kennel > /dev/null 2>&1 || true # left behind by a power cut
  docker run --rm --name kennel --network none --shm-size 8g --env TRAINING_IMAGE="$IMAGE" "${gpus[@]}" "$@"
}

prepare() {
  local manifest hyperparameters mode duplicates
  manifest=$(tag DataManifest)
  [ -n "$manifest" ] || manifest=$(newest_manifest)
  if [ -z "$manifest" ] || [ "$manifest" = null ]; then
    echo "There is no data set in s3://$BUCKET/datasets/: upload one with \`kennel upload\`." | tee "$ml/output/message"
    return 1
  fi
  echo "Data: s3://$BUCKET/$manifest"
  hyperparameters=$(tag Hyperparameters)
  hyperparameters=${hyperparameters:-{\}}
  mode=$(sed -n 's/.*"mode" *: *"\([a-z]*\)".*/\1/p' <<< "$hyperparameters")
  duplicates=$(tag Duplicates)
  if [ "$(cat "$ml/checkpoints.of" 2> /dev/null)" != "$manifest" ]; then rm -rf "$ml/checkpoints"; fi
  echo "$manifest" > "$ml/checkpoints.of"
  rm -rf "$ml"/{input/data,processing}
  mkdir -p "$ml"/{input/data,checkpoints,processing/{input/{dataset,model},output}}
  chmod -R a+rwX "$ml" # whoever the image runs as
  aws s3 cp --recursive --only-show-errors "s3://$BUCKET/${manifest%.manifest}/" "$ml/processing/input/dataset/"
  container -v "$ml/processing:/opt/ml/processing" -v "$ml/output:/opt/ml/output" "$IMAGE" \
    prepare --duplicates "${duplicates:-fail}" --mode "${mode:-auto}"
  mv "$ml/processing/output/data/train" "$ml/processing/output/data/valid" "$ml/processing/output/weights" \
    "$ml/input/data/"
  echo "$hyperparameters" > "$ml/input/config/hyperparameters.json"
  printf '{"current_host": "algo-1", "current_instance_type": "%s", "hosts": ["algo-1"], "network_interface_name": "lo"}' \
    "$(about instance-type)" > "$ml/input/config/resourceconfig.json"
  echo '{"train": {}, "valid": {}, "weights": {}}' > "$ml/input/config/inputdataconfig.json"
  touch "$ml/prepared"
}

# The test split stays outside: training cannot see it.
train() {
  container --hostname algo-1 -v "$ml/input:/opt/ml/input:ro" -v "$ml/model:/opt/ml/model" \
    -v "$ml/output:/opt/ml/output" -v "$ml/checkpoints:/opt/ml/checkpoints" "$IMAGE" train
}

evaluate() {
  (cd "$ml/model" && tar -czf "$ml/processing/input/model/model.tar.gz" -- *)
  rm -rf "$ml/processing/input/test"
  cp -r "$ml/processing/output/data/test" "$ml/processing/input/test"
  container -v "$ml/processing:/opt/ml/processing" -v "$ml/output:/opt/ml/output" "$IMAGE" evaluate
}

upload() {
  aws s3 cp --only-show-errors "$ml/processing/input/model/model.tar.gz" "$to/output/model.tar.gz"
  aws s3 cp --only-show-errors --recursive "$ml/processing/output/evaluation" "$to/evaluation"
  aws s3 cp --only-show-errors --recursive "$ml/processing/output/report" "$to/report"
  echo "Model: $to/output/model.tar.gz"
}

run() {
  set -e
  rm -f "$ml"/output/{failure,message}
  aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
  docker pull --quiet "$IMAGE"
  if [ ! -f "$ml/prepared" ]; then prepare; fi
  train
  evaluate
  upload
}

# First the container, which writes its checkpoint; then whatever else goes on: a download, an upload.
stop() {
  docker stop -t 120 kennel
  kill "$run"
}

mkdir -p "$ml"
[ -s "$ml/run-id" ] || begin
to="s3://$BUCKET/$PREFIX/$(cat "$ml/run-id")"
run >> "$ml/run.log" 2>&1 &
run=$!
trap 'stop > /dev/null 2>&1' TERM
# A signal ends the first wait early; the second waits until the trap has done its work.
wait "$run"
wait "$run"
status=$?
aws s3 cp --only-show-errors "$ml/run.log" "$to/run.log"
for reason in "$ml"/output/{failure,message}; do
  if [ -s "$reason" ]; then aws s3 cp --only-show-errors "$reason" "$to/failure"; fi
done
# Done or failed, the next boot begins anew; stopped (143) or cut off, it goes on.
if [ "$status" -ne 143 ]; then rm -f "$ml/run-id"; fi
exit "$status"
