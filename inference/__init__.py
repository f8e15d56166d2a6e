"""The server that holds a trained classifier and answers for pictures, as SageMaker asks a container to."""
